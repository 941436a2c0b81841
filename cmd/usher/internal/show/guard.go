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
		Long: `The guard holds changes of more subscribers than configured: removed, moved, blocked, opened, added, each kind by
itself. Who is held stays as before until that is accepted or the ERP answers differently; the rest of the answer is in use.`,
		Example: "  usher guard show\n  usher guard accept\n  usher guard reject",
		Args:    cli.Subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	guard.AddCommand(c.SocketFlag(&cobra.Command{
		Use:     "show",
		Short:   "Show what is held and why, customer by customer",
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
		{"accept", "Put what is held into use", "The subscribers that are held are changed at once.", (*console.Client).AcceptHeld},
		{"reject", "Hold what is held for good", "Each of these changes is held from then on without asking again, over restarts too, until the ERP takes it back, the customer's own card says the same, or it is accepted. Other changes are judged by themselves.", (*console.Client).RejectHeld},
	} {
		var fingerprint, source string
		cmd := c.SocketFlag(&cobra.Command{
			Use:     d.verb,
			Short:   d.short,
			Long:    d.long,
			Example: "  usher guard " + d.verb + "\n  usher guard " + d.verb + " --fingerprint 0123456789abcdef",
			Args:    cli.Exactly(0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.GuardResult, error) {
					if source != "" {
						return cl.AcceptSource(ctx, syncer.SourceName(source), fingerprint)
					}
					return d.decide(cl, ctx, fingerprint)
				}, printGuardResult)
			},
		})
		cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "only if what is held is still this, as guard show told")
		if d.verb == "accept" {
			cmd.Flags().StringVar(&source, "source", "", "what is held of this source of the ERP, as guard show told: devices")
		}
		guard.AddCommand(cmd)
	}
	return guard
}

func printGuardResult(w io.Writer, r *console.GuardResult) error {
	if r.Source != nil {
		_, err := fmt.Fprintf(w, "%s: %s: %s\nnext: the ERP is read again now: usher status\n", r.Action, r.Source.Source, r.Source.Error)
		return err
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", r.Action, r.Held.Decision.Reason)
	return err
}

// maxHeldShown is how many customers "guard show" lists; JSON has them all.
const maxHeldShown = 20

func printGuard(w io.Writer, g *console.GuardView) error {
	if g.Held == nil && len(g.Sources) == 0 && len(g.Rejected) == 0 {
		_, err := fmt.Fprintln(w, "the guard holds nothing")
		return err
	}
	if g.Held == nil {
		var rows [][]string
		if n := len(g.Rejected); n > 0 {
			rows = append(rows, []string{"rejected", fmt.Sprintf("%d changes, which are held as soon as the ERP says so again", n)})
			rows = append(rows, changeRows(g.Rejected)...)
		}
		return cli.Table(w, append(rows, heldSourceRows(g.Sources)...))
	}
	h := g.Held
	rows := [][]string{
		{"held", h.Decision.Reason},
		{"fingerprint", h.Fingerprint},
		{"since", fmt.Sprintf("%s, the same came %d times", cli.Ago(h.Since, time.Now()), h.Seen)},
		{"answer", fmt.Sprintf("%d bindings, %d active, %d paused, %d stopped", h.Counts.Bindings, h.Counts.Active, h.Counts.Paused, h.Counts.Stopped)},
	}
	verbs := map[syncer.ChangeKind]string{"removed": "removes", "moved": "moves", "blocked": "blocks", "opened": "opens", "added": "adds"}
	for _, k := range syncer.ChangeKinds() {
		if n := h.Decision.Of(k); n.Count+n.Rejected > 0 {
			rows = append(rows, []string{verbs[k], countText(n, &h.Decision)})
		}
	}
	rows = append(rows, changeRows(g.Changes)...)
	rows = append(rows, openingRows(h.Openings, time.Now())...)
	switch n := len(g.Rejected); {
	case h.Rejected:
		rows = append(rows, []string{"rejected", "an operator said no to all of this"})
	case n > 0:
		rows = append(rows, []string{"rejected", fmt.Sprintf("an operator said no to %d of these changes; accept would put them into use, too", n)})
	}
	rows = append(rows, []string{"next", "usher guard accept, usher guard reject, or mend the ERP"})
	return cli.Table(w, append(rows, heldSourceRows(g.Sources)...))
}

// changeRows name the first customers whose changes are held.
func changeRows(list []syncer.HeldChange) (rows [][]string) {
	for i, c := range list {
		if i == maxHeldShown {
			return append(rows, []string{"", fmt.Sprintf("and %d more: --output json", len(list)-i)})
		}
		text := fmt.Sprintf("customer %d  %s", c.Subscriber, c.Text())
		if c.Rejected {
			text += ", rejected"
		}
		rows = append(rows, []string{"", text})
	}
	return rows
}

// heldSourceRows tell of the sources of the ERP that are not believed, and what can be done about it.
func heldSourceRows(list []syncer.SourceStatus) (rows [][]string) {
	for _, st := range list {
		rows = append(rows, []string{string(st.Source), st.Text()})
		if st.Fingerprint != "" {
			rows = append(rows, []string{"fingerprint", st.Fingerprint})
		}
		if st.Source == syncer.SourceDevices {
			rows = append(rows, []string{"", "usher guard accept --source devices, if the ERP is right; else mend it"})
		}
	}
	return rows
}

func countText(n *syncer.GuardCount, d *syncer.GuardDecision) string {
	text := fmt.Sprintf("%d of %d subscribers (%.1f%%, limit %.1f%%)", n.Count, d.Subscribers, 100*n.Share, 100*n.Limit)
	if n.Hour > 0 {
		text += fmt.Sprintf(", %d of them within the last hour", n.Hour)
	}
	if len(n.Examples) > 0 {
		text += fmt.Sprintf(", such as %v", n.Examples)
	}
	if !n.Over && !d.NoRows {
		text += ": in use"
	}
	if n.Rejected > 0 {
		text += fmt.Sprintf("; beside them %d that an operator rejected", n.Rejected)
	}
	return text
}

// openingRows tell what cards say of openings that are held.
func openingRows(o *syncer.OpeningStatus, now time.Time) [][]string {
	if o == nil {
		return nil
	}
	text := "not asked for yet"
	switch {
	case len(o.Contradicted) > 0:
		text = fmt.Sprintf("%d of %d say that the customer is blocked, such as %v: nobody is let in until that changes", len(o.Contradicted), o.Read, o.Contradicted[:min(len(o.Contradicted), 3)])
	case o.Error != "":
		text = "cannot be read: " + o.Error
	}
	if !o.CheckedAt.IsZero() {
		text += ", " + cli.Ago(o.CheckedAt, now)
	}
	if !o.OpensAt.IsZero() {
		text += "; if it stays so, all are opened " + cli.Ago(o.OpensAt, now)
	}
	return [][]string{{"cards", text}}
}
