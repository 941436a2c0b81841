package show

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
)

func newPools(c *cli.Program) *cobra.Command {
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "pools [NAME]",
		Short: "Show how full the dynamic pools are, and who has which address",
		Long: `pools asks the running agent for the pools of dhcp.pools: their size, how much of them is free, offered,
leased, in quarantine or bound by the ERP, and how often clients found none. With the name of a pool it
also lists the addresses that are not free, and those that somebody had before.

It exits 1 while a pool is used beyond its warn_at.`,
		Example: "  usher pools\n  usher pools guests\n  usher pools --output json | jq '.pools[] | {name, used}'",
		Args:    cobra.MatchAll(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			full := false
			err := cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.PoolsView, error) {
				v, err := cl.Pools(ctx, name)
				for i := 0; err == nil && i < len(v.Pools); i++ {
					full = full || v.Pools[i].Full
				}
				return v, err
			}, printPools)
			if err == nil && full {
				return cli.ErrSilent
			}
			return err
		},
	})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		v, err := (&console.Client{Socket: c.Socket}).Pools(ctx, "")
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, p := range v.Pools {
			names = append(names, p.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

func printPools(w io.Writer, v *console.PoolsView) error {
	if len(v.Pools) == 0 {
		_, err := fmt.Fprintln(w, "no pools are configured (dhcp.pools)")
		return err
	}
	p := cli.NewPaint(w)
	rows := [][]string{{"POOL", "FOR", "RANGE", "USED", "FREE", "OFFERED", "LEASED", "QUARANTINED", "BOUND", "EXHAUSTED"}}
	for _, x := range v.Pools {
		used := fmt.Sprintf("%.0f%%", 100*x.Used)
		if x.Full {
			used = p.Red(used)
		}
		rows = append(rows, []string{x.Name, x.For, fmt.Sprintf("%s-%s", x.First, x.Last), used, fmt.Sprint(x.Free), fmt.Sprint(x.Offered),
			fmt.Sprint(x.Leased), fmt.Sprint(x.Quarantined), fmt.Sprint(x.Bound), fmt.Sprint(x.Exhausted)})
	}
	if err := cli.Table(w, rows); err != nil || v.Addresses == nil {
		return err
	}
	now := time.Now()
	rows = [][]string{{"", "", "", "", ""}, {"ADDRESS", "STATE", "MAC", "CUSTOMER", "UNTIL"}}
	for _, a := range v.Addresses {
		state := a.State
		if a.Bound {
			state += ", bound by the ERP"
		}
		end := "-"
		if !a.Until.IsZero() {
			end = cli.Ago(a.Until, now)
		}
		rows = append(rows, []string{a.IP.String(), state, orDash(a.Holder.String(), a.Holder.IsZero()), orDash(fmt.Sprint(a.Subscriber), a.Subscriber == 0), end})
	}
	return cli.Table(w, rows)
}
