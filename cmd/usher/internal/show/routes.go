package show

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/route"
)

func newRoutes(c *cli.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "routes",
		Short: "See and remove the routes to single leases",
		Long: `The running agent keeps a /32 route for every live lease on the interfaces of routes.interfaces. The number
routes.protocol marks them as its own; others are neither shown nor touched.`,
		Example: `  usher routes show
  usher routes show 198.51.100.17
  usher routes clear`,
		Args: cli.Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRoutesShow(c), newRoutesClear(c))
	return cmd
}

// routesOf opens the routes of our number: the one given, or that of the
// configuration.
func routesOf(path string, protocol uint8) (*link.Routes, uint8, error) {
	if protocol == 0 {
		cfg, err := config.Load(path)
		if err != nil {
			return nil, 0, fmt.Errorf("%w (its routes.protocol says which routes are ours; or give --protocol)", err)
		}
		protocol = cfg.Routes.Protocol
	}
	k, err := link.OpenRoutes(link.RouteOptions{Protocol: protocol})
	return k, protocol, err
}

func protocolFlag(cmd *cobra.Command, protocol *uint8) {
	cmd.Flags().Uint8Var(protocol, "protocol", 0, "the number of the routes; 0 is routes.protocol of the configuration")
	cli.Must(cmd.RegisterFlagCompletionFunc("protocol", cobra.NoFileCompletions))
}

func newRoutesShow(c *cli.Program) *cobra.Command {
	var path string
	var protocol uint8
	var all bool
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "show [IP]",
		Short: "Show which routes are wanted and which the kernel has",
		Long: `show compares all leases with the kernel now, changes nothing, and tells what differs and what is wrong with the
settings of interfaces. With an address only its route is shown, with --all every one.

  installed  wanted and there
  missing    wanted and not there
  waiting    wanted, but its interface is down or gone
  extra      there, but no live lease wants it
  unknown    there without any lease record, kept for the longest lease time

Without an agent, or when it keeps no routes, those of routes.protocol are read from the kernel.

It exits 0 when the kernel is as wanted and 1 when routes are missing or extra.`,
		Example: `  usher routes show
  usher routes show 198.51.100.17
  usher routes show --output json | jq '.routes[] | select(.state != "installed")'`,
		Args: cli.AtMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var only netip.Addr
			if len(args) > 0 {
				var err error
				if only, err = netip.ParseAddr(args[0]); err != nil || !only.Is4() {
					return cli.Usage(fmt.Errorf("%.40q: want an IPv4 address such as 198.51.100.17", args[0]))
				}
			}
			equal := false
			err := cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.RoutesView, error) {
				v, err := cl.Routes(ctx)
				if offline(err) || err == nil && !v.Enabled {
					v, err = kernelRoutes(ctx, path, protocol, err == nil)
				}
				if err != nil {
					return nil, err
				}
				if only.IsValid() {
					v.Routes = slices.DeleteFunc(v.Routes, func(r route.Row) bool { return r.Addr != only && r.Via != only })
					v.Count()
				}
				equal = v.Equal()
				return v, nil
			}, func(w io.Writer, v *console.RoutesView) error { return printRoutes(w, v, all || only.IsValid()) })
			if err == nil && !equal {
				return cli.ErrSilent
			}
			return err
		},
	})
	cli.ConfigFlag(cmd, &path)
	protocolFlag(cmd, &protocol)
	cmd.Flags().BoolVar(&all, "all", false, "list the routes that are in order, too")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// kernelRoutes reads the routes of our number, which everybody may.
func kernelRoutes(ctx context.Context, path string, protocol uint8, agent bool) (*console.RoutesView, error) {
	k, protocol, err := routesOf(path, protocol)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	links, err := k.Links(ctx)
	if err != nil {
		return nil, err
	}
	routes, err := k.Routes(ctx)
	if err != nil {
		return nil, err
	}
	v := &console.RoutesView{Agent: agent, Protocol: protocol, Routes: route.Rows(links, routes)}
	v.Count()
	return v, nil
}

func printRoutes(w io.Writer, v *console.RoutesView, all bool) error {
	p, now := cli.NewPaint(w), time.Now()
	var rows [][]string
	switch {
	case !v.Agent:
		rows = append(rows, []string{"agent", p.Red(fmt.Sprintf("none runs; these are the kernel's %d routes of protocol %d", len(v.Routes), v.Protocol))})
		all = true
	case !v.Enabled:
		rows = append(rows, []string{"agent", fmt.Sprintf("it keeps no routes (routes.enabled); the kernel has %d of protocol %d", len(v.Routes), v.Protocol)})
		all = true
	case v.Status != nil:
		rows = append(rows, routeRows(p, v.Status, now)...)
	}
	rows = append(rows, []string{})
	n := 0
	for _, r := range v.Routes {
		if !all && r.State == route.Installed {
			continue
		}
		state, expires := string(r.State), "-"
		if r.State == route.Missing || r.State == route.Extra {
			state = p.Red(state)
		}
		if !r.Expires.IsZero() {
			expires = "lease ends " + cli.Ago(r.Expires, now)
		}
		dst := r.Addr.String()
		if r.Via.IsValid() {
			dst = fmt.Sprintf("%s/%d via %s", r.Addr, r.Bits, r.Via)
		}
		rows = append(rows, []string{dst, r.Interface, fmt.Sprintf("table %d metric %d", r.Table, r.Metric), state, expires})
		n++
	}
	if n == 0 {
		rows = rows[:len(rows)-1]
	}
	return cli.Table(w, rows)
}

// routesCleared is what "usher routes clear" did.
type routesCleared struct {
	Protocol uint8 `json:"protocol"`
	Removed  int   `json:"removed"`
}

func newRoutesClear(c *cli.Program) *cobra.Command {
	var path string
	var protocol uint8
	var yes bool
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "clear",
		Short: "Remove our routes from the kernel",
		Long: `clear removes the /32 routes with the number routes.protocol, for a host on which usher will not keep them any more:
an agent leaves them in the kernel when it ends. After another number was configured, --protocol names the old one.

It is refused while an agent keeps routes of this number, for that one would put them back at once. Set routes.enabled to
false and restart the agent, or stop it (systemctl stop usher).`,
		Example: `  systemctl stop usher && usher routes clear
  usher routes clear --protocol 207 --yes`,
		Args: cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), cli.ClientLimit)
			defer cancel()
			k, number, err := routesOf(path, protocol)
			if err != nil {
				return err
			}
			defer k.Close()
			if err := nobodyKeeps(ctx, c, cmd, path, number); err != nil {
				return err
			}
			routes, err := k.Routes(ctx)
			if err != nil {
				return err
			}
			if len(routes) > 0 && !yes {
				if err := confirm(cmd, fmt.Sprintf("Remove %d routes of protocol %d from the kernel? Their subscribers cannot be reached then.", len(routes), number)); err != nil {
					return err
				}
			}
			err = removeRoutes(ctx, k, routes)
			what := audit.What{Protocol: number}
			if n := len(routes); err == nil {
				what.Removed = &n
			}
			cli.Audit(cmd, stateDir(path), audit.Record{Act: audit.RoutesClear, What: what, Result: resultOf(err, unix.EPERM)}, err)
			if err != nil {
				return err
			}
			if c.Output == "json" {
				return cli.PrintJSON(cmd.OutOrStdout(), routesCleared{number, len(routes)})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed: %d routes of protocol %d\n", len(routes), number)
			return err
		},
	})
	cli.ConfigFlag(cmd, &path)
	protocolFlag(cmd, &protocol)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// nobodyKeeps makes sure that no agent would put routes of this number back. The
// socket is that of the configuration, unless another is given.
func nobodyKeeps(ctx context.Context, c *cli.Program, cmd *cobra.Command, path string, protocol uint8) error {
	cl := &console.Client{Socket: c.Socket}
	if !cmd.Flags().Changed("socket") {
		if cfg, err := config.Load(path); err == nil {
			cl.Socket = cfg.Control.Socket
		}
	}
	v, err := cl.Routes(ctx)
	switch {
	case offline(err):
		return nil
	case err != nil:
		return fmt.Errorf("whether an agent keeps these routes is not known: %w", err)
	case v.Enabled && !v.Status.DryRun && v.Protocol == protocol:
		return errors.New("a running agent keeps these routes and would put them back: set routes.enabled to false and restart it, or stop it, first")
	}
	return nil
}

// removeRoutes removes routes of ours; one that is gone meanwhile is no error.
func removeRoutes(ctx context.Context, k *link.Routes, routes []route.Route) error {
	results, err := k.Apply(ctx, route.Plan(nil, routes))
	if err == nil {
		err = errors.Join(firstOf(results)...)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: only root may change the kernel's routes", err)
	}
	return err
}

// firstOf returns one error of many at most, with their number.
func firstOf(results []error) []error {
	failed := slices.DeleteFunc(slices.Clone(results), func(err error) bool { return err == nil })
	if len(failed) <= 1 {
		return failed
	}
	return []error{fmt.Errorf("%d of %d routes cannot be removed, the first: %w", len(failed), len(results), failed[0])}
}

// routeRows are the lines of "usher status" about routes.
func routeRows(p cli.Paint, r *route.Status, now time.Time) [][]string {
	text := fmt.Sprintf("%d of %d leases have their route", r.Installed, r.Want)
	if r.DryRun {
		text = fmt.Sprintf("dry run: %d leases would have a route", r.Want)
	}
	if r.Waiting > 0 {
		text += fmt.Sprintf(", %d wait for their interface", r.Waiting)
	}
	if r.Unknown > 0 {
		text += fmt.Sprintf(", %d kept without a lease record", r.Unknown)
	}
	rows := [][]string{{"routes", text}}
	for i, f := range r.Findings {
		if i == 3 {
			rows = append(rows, []string{"", fmt.Sprintf("and %d more findings", len(r.Findings)-i)})
			break
		}
		rows = append(rows, []string{"", p.Red(f.Interface + ": " + f.Text)})
	}
	if r.LastError != "" {
		rows = append(rows, []string{"", p.Red("error " + cli.Ago(r.LastErrorAt, now) + ": " + r.LastError)})
	}
	return rows
}
