package erpcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
)

func newCustomer(c *cli.Program) *cobra.Command {
	customer := &cobra.Command{
		Use:   "customer",
		Short: "Look at customers of the ERP and change them",
		Long: `pause, stop and resume ask the running agent: it changes the state in the ERP and, when that has agreed,
in the kernel at once.

All the others talk to the ERP directly, with the address and the key of the configuration (or --url and
--key-file), and do not need an agent. What they change, state-change included, an agent learns at its
next poll or by the ERP's hook; they do not wait for the kernel.`,
		Example: `  usher customer pause 1001
  usher customer resume 1001 --output json
  usher customer get-data --customer-id 1001
  usher customer get-abon-id --data-typer ip --data-value 192.0.2.17
  usher customer ip-add --customer-id 1001 --value 192.0.2.17 --dry-run`,
		Args: cli.Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	customer.AddGroup(&cobra.Group{ID: groupAgent, Title: "Through the running agent, applied in the kernel at once:"})
	for _, s := range []struct {
		verb, short string
		state       provision.State
	}{
		{"pause", "Pause a customer: refused in the kernel at once", provision.StatePause},
		{"stop", "Stop a customer: dropped in the kernel at once", provision.StateStop},
		{"resume", "Make a customer active again", provision.StateActive},
	} {
		customer.AddCommand(c.SocketFlag(&cobra.Command{
			Use:     s.verb + " ID",
			Short:   s.short,
			GroupID: groupAgent,
			Long: s.short + `.

The running agent calls state_change of the ERP and, when that has agreed, applies the state to the
kernel without waiting for a poll. A billing that is imported into the ERP may overwrite the state later.
("usher customer state-change" tells the ERP alone, without an agent.)

The ERP is told once. If its answer is lost, or says neither yes nor no, the agent looks at the customer's
card for half a minute. If that does not show the state either, it is not known whether the ERP has taken
the change: this is said, with exit code 3, and the agent follows what the ERP shows later.`,
			Example: "  usher customer " + s.verb + " 1001",
			Args:    cli.Exactly(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				id, err := strconv.ParseInt(args[0], 10, 64)
				if err != nil || id <= 0 {
					return cli.Usage(fmt.Errorf("customer id %q: want a number from 1", args[0]))
				}
				uncertain := false
				err = cli.AskWithin(cli.ChangeLimit, c, cmd, func(ctx context.Context, cl *console.Client) (*console.StateChange, error) {
					ch, err := cl.SetState(ctx, provision.SubscriberID(id), s.state)
					uncertain = err == nil && ch.Outcome == console.StateUncertain
					return ch, err
				}, printStateChange)
				if err == nil && uncertain {
					return errors.Join(cli.ErrSilent, cli.ErrUncertain) // the answer has said so
				}
				return err
			},
		}))
	}
	addActions(c, customer, "customer")
	return customer
}

func printStateChange(w io.Writer, ch *console.StateChange) error {
	if ch.Outcome == console.StateUncertain {
		_, err := fmt.Fprintf(w, `customer %d: it is not known whether the ERP took %s, was %s (%.0f s)
why: %s; since then the customer's card has not shown it
next: do not repeat it before you have looked in the ERP; the agent follows what the ERP shows: usher explain %[1]d
`, ch.Subscriber, ch.State, ch.Before, ch.ERPSeconds, ch.Detail)
		return err
	}
	_, err := fmt.Fprintf(w, "customer %d: %s, was %s (ERP %.0f ms, kernel %.0f ms)\n", ch.Subscriber, ch.State, ch.Before, 1000*ch.ERPSeconds, 1000*ch.KernelSeconds)
	if err == nil && ch.Outcome == console.StateFound {
		_, err = fmt.Fprintf(w, "note: the ERP has the state, though its answer did not say so: %s\n", ch.Detail)
	}
	return err
}
