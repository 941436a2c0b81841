package show

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
)

func newLeases(c *cli.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leases",
		Short: "End a lease by hand",
		Long: `The running agent keeps a record of who has which address. usher explain shows those of an address, a MAC or a
customer, usher pools those of a pool.`,
		Example: "  usher leases drop 198.51.100.17",
		Args:    cli.Subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLeasesDrop(c))
	return cmd
}

func newLeasesDrop(c *cli.Program) *cobra.Command {
	var yes bool
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "drop ADDRESS",
		Short: "End the lease of an address now",
		Long: `drop ends a lease as if its client had given the address back: another client of the line may have it, an address of
a pool is free, the route and the element of the source guard that follow the lease go. It is on disk when the command
returns. Nothing is changed in the ERP.

The client is not told, DHCP has no way to. It uses the address until it renews, and is then answered like anybody: if
the ERP still has the address for its MAC or its line, it gets it again. Where routes or the source guard follow leases,
it is cut off until then.`,
		Example: `  usher leases drop 198.51.100.17
  usher leases drop 198.51.100.17 --yes
  usher leases drop 198.51.100.17 --yes --output json | jq -r .lease.mac`,
		Args: cli.Exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ip, err := netip.ParseAddr(args[0])
			if err != nil || !ip.Is4() {
				return cli.Usage(fmt.Errorf("%.40q: want an IPv4 address such as 198.51.100.17", args[0]))
			}
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.LeaseDropped, error) {
				var mac provision.MAC
				if !yes {
					l, err := cl.Lease(ctx, ip)
					if err != nil {
						return nil, err
					}
					if l.Live { // else the agent says what it is
						mac = l.MAC
						if err := confirm(cmd, fmt.Sprintf("End the lease of %s? It is %s, %s.", ip, holder(&l.LeaseView), l.Standing)); err != nil {
							return nil, err
						}
						// Who is asked may think it over.
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(cmd.Context(), cli.ClientLimit)
						defer cancel()
					}
				}
				return cl.DropLease(ctx, ip, mac)
			}, printLeaseDropped)
		},
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// holder says whose a lease is.
func holder(l *console.LeaseView) string {
	text := "that of " + l.MAC.String()
	if l.Subscriber != 0 {
		text += fmt.Sprintf(", customer %d", l.Subscriber)
	}
	if l.Pool != "" {
		text += ", of pool " + l.Pool
	}
	return text
}

func printLeaseDropped(w io.Writer, d *console.LeaseDropped) error {
	_, err := fmt.Fprintf(w, "ended: the lease of %s, %s; its client is not told and is answered like anybody when it asks again\n", d.Lease.IP, holder(&d.Lease))
	return err
}
