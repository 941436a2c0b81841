package show

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/syncer"
)

func newGuard(c *cli.Program) *cobra.Command {
	guard := &cobra.Command{
		Use:   "guard",
		Short: "See and decide what the guard holds",
		Long: `The guard holds a fetch that would remove, move or block more subscribers than configured. The earlier
snapshot stays in use until the fetch is accepted or the ERP answers differently.`,
		Example: "  usher guard show\n  usher guard accept\n  usher guard reject",
		Args:    cli.Subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	guard.AddCommand(c.SocketFlag(&cobra.Command{
		Use:     "show",
		Short:   "Show what is held and why",
		Example: "  usher guard show\n  usher guard show --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.GuardView, error) { return cl.Guard(ctx) }, printGuard)
		},
	}))
	for _, d := range []struct {
		verb, short, long string
		decide            func(*console.Client, context.Context, string) (*console.GuardResult, error)
	}{
		{"accept", "Put the held fetch into use", "The subscribers that it removes, moves or blocks are affected at once.", (*console.Client).AcceptHeld},
		{"reject", "Forget the held fetch", "The same answer of the ERP is held from then on without asking again, until it changes or is accepted.", (*console.Client).RejectHeld},
	} {
		var fingerprint string
		cmd := c.SocketFlag(&cobra.Command{
			Use:     d.verb,
			Short:   d.short,
			Long:    d.long,
			Example: "  usher guard " + d.verb + "\n  usher guard " + d.verb + " --fingerprint 0123456789abcdef",
			Args:    cli.Exactly(0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.GuardResult, error) {
					return d.decide(cl, ctx, fingerprint)
				}, printGuardResult)
			},
		})
		cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "only if what is held is still this, as guard show told")
		guard.AddCommand(cmd)
	}
	return guard
}

func printGuardResult(w io.Writer, r *console.GuardResult) error {
	_, err := fmt.Fprintf(w, "%s: %s\n", r.Action, r.Held.Decision.Reason)
	return err
}

func printGuard(w io.Writer, g *console.GuardView) error {
	if g.Held == nil {
		_, err := fmt.Fprintln(w, "the guard holds nothing")
		return err
	}
	h := g.Held
	rows := [][]string{
		{"held", h.Decision.Reason},
		{"fingerprint", h.Fingerprint},
		{"since", fmt.Sprintf("%s, the same answer came %d times", cli.Ago(h.Since, time.Now()), h.Seen)},
		{"holds", fmt.Sprintf("%d bindings, %d active, %d paused, %d stopped", h.Counts.Bindings, h.Counts.Active, h.Counts.Paused, h.Counts.Stopped)},
	}
	for _, k := range []struct {
		name string
		n    syncer.GuardCount
	}{{"removes", h.Decision.Removed}, {"moves", h.Decision.Moved}, {"blocks", h.Decision.Blocked}} {
		if k.n.Count > 0 {
			rows = append(rows, []string{k.name, fmt.Sprintf("%d of %d subscribers (%.1f%%, limit %.1f%%), such as %v", k.n.Count, h.Decision.Subscribers, 100*k.n.Share, 100*k.n.Limit, k.n.Examples)})
		}
	}
	if h.Rejected {
		rows = append(rows, []string{"rejected", "an operator said no to this answer"})
	}
	rows = append(rows, []string{"next", "usher guard accept, usher guard reject, or mend the ERP"})
	return cli.Table(w, rows)
}
