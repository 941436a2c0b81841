// Package erpcmd is the commands that talk to the ERP: its actions, and erp probe,
// record and call.
package erpcmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/agent"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision/erp"
)

// Commands returns those of the ERP: customer, erp, and the other categories.
func Commands(c *cli.Program) []*cobra.Command {
	return append([]*cobra.Command{newCustomer(c), newERP(c)}, newNeighbours(c)...)
}

func newERP(c *cli.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "erp",
		Short: "Find out what an ERP answers, record it as a test case, call any action",
		Long: `erp talks to a UserSide ERP without a running agent. probe and record only read; call does what it is told.

The server is that of a configuration (--config), or one given by --url and --key-file.`,
		Example: `  usher erp probe --config /etc/usher/usher.yaml
  usher erp probe --url https://erp.example.net/api.php --key-file /etc/usher/key
  usher erp record --out case --config /etc/usher/usher.yaml
  usher erp call customer get_data customer_id=1001`,
		Args: cli.Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newERPProbe(c), newERPRecord(c), newERPCall(c))
	return cmd
}

// asConfigured returns how the agent would use the ERP: as the configuration says
// it, or with what is assumed for an ERP that was named by --url.
func (a *erpAccess) asConfigured() (erp.ProbeOptions, error) {
	if a.url != "" {
		return erp.ProbeOptions{}, nil
	}
	cfg, err := config.Load(a.config)
	if err != nil {
		return erp.ProbeOptions{}, err
	}
	return erp.ProbeOptions{Fetch: agent.FetchOptions(cfg, nil, nil), Subnets: cfg.Prefixes(), Reserved: cfg.Reserved(), Pools: cfg.PoolRanges(), Relays: cfg.DHCP.Relays}, nil
}

// progress shows one line on a terminal, which each call overwrites. done takes it away.
func progress(w io.Writer) (show func(string), done func()) {
	if !cli.IsTerminal(w) {
		return func(string) {}, func() {}
	}
	return func(s string) { cli.Progress(w, fmt.Sprintf("%.100s", s)) }, func() { cli.Progress(w, "") }
}

func newERPProbe(c *cli.Program) *cobra.Command {
	var access *erpAccess
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Report what an ERP offers and whether the agent can run with it",
		Long: `probe makes every read that the agent makes, and tries some more with harmless arguments. It reports
the version, what the key may use, the shape of get_ip_port_device_commutation, how many rows and
defects there are and how long each call took. It changes nothing: whether the key may write
(set_mac_by_ip, state_change) is not tried.

It exits 0 when the agent can run and 1 when it cannot.`,
		Example: `  usher erp probe --config /etc/usher/usher.yaml
  usher erp probe --url https://erp.example.net/api.php --key-file /etc/usher/key
  usher erp probe --output json | jq .reason`,
		Args: cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := access.options(cmd.InOrStdin(), false)
			if err != nil {
				return err
			}
			o, err := access.asConfigured()
			if err != nil {
				return err
			}
			show, done := progress(cmd.ErrOrStderr())
			o.Client, o.Progress = client, show
			report, err := erp.Probe(cmd.Context(), o)
			done()
			if err != nil {
				return err
			}
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			err = cli.Show(c, cmd, report, printProbe)
			if err == nil && !report.Ready {
				return cli.ErrSilent
			}
			return err
		},
	}
	access = erpFlags(c, cmd)
	return cmd
}

func printProbe(w io.Writer, r *erp.ProbeReport) error {
	p := cli.NewPaint(w)
	or := func(s, empty string) string {
		if s == "" {
			return empty
		}
		return s
	}
	server := or(r.Version, "version not told")
	for _, s := range []string{r.PHP, r.OS} {
		if s != "" {
			server += ", " + s
		}
	}
	if r.PHP != "" {
		server = strings.Replace(server, ", "+r.PHP, ", PHP "+r.PHP, 1)
	}
	rows := [][]string{
		{"server", r.URL},
		{"version", server},
		{"envelope", or(string(r.Envelope), "none seen")},
		{"bindings", shapeText(r)},
		{"state_id=0", zeroText(r)},
		{"POST", r.Post},
	}
	if r.Source != "" {
		k := r.Counts
		rows = append(rows,
			[]string{"read", fmt.Sprintf("%d rows, source %s, in %s", r.Rows, r.Source, seconds(r.FetchTook))},
			[]string{"", fmt.Sprintf("%d bindings of %d customers on %d switches; %d without MAC, %d without port", k.Bindings, k.Subscribers, k.Devices, k.WithoutMAC, k.WithoutPort)},
			[]string{"", fmt.Sprintf("%d active, %d paused, %d stopped, %d unknown", k.Active, k.Paused, k.Stopped, k.Unknown)})
	}
	if kinds := cli.Counts(r.Problems); kinds != "" {
		rows = append(rows, []string{"problems", kinds})
	}
	if err := cli.Table(w, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	calls := [][]string{{"ACTION", "MAY", "CALLS", "SLOWEST", "SIZE", "FOR", "ANSWER"}}
	for _, a := range r.Calls {
		detail := string(a.Outcome)
		if a.Detail != "" {
			detail += ": " + a.Detail
		}
		calls = append(calls, []string{a.Action, string(a.May), fmt.Sprint(a.Calls), seconds(a.Slowest), size(a.Bytes), or(a.For, "-"), fmt.Sprintf("%.120s", detail)})
	}
	for _, a := range r.NotTried {
		calls = append(calls, []string{a, "not tried", "0", "-", "-", "-", "changes data"})
	}
	if err := cli.Table(w, calls); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, s := range r.Warnings {
		fmt.Fprintln(w, "note: "+s)
	}
	verdict := p.Green("yes")
	if !r.Ready {
		verdict = p.Red("no")
	}
	_, err := fmt.Fprintf(w, "the agent can run: %s, because %s\n", verdict, r.Reason)
	return err
}

// zeroText says what the ERP makes of state_id=0.
func zeroText(r *erp.ProbeReport) string {
	switch r.StateZero {
	case erp.ZeroCondition:
		if r.StateZeroCompared > 0 {
			return fmt.Sprintf("is a condition: %d of %d cards compared are in state 0", r.StateZeroCompared-r.StateZeroOther, r.StateZeroCompared)
		}
		return "is a condition"
	case erp.ZeroIgnored:
		if r.StateZeroOther > 0 {
			return fmt.Sprintf("is no condition: %d of %d cards compared are in another state", r.StateZeroOther, r.StateZeroCompared)
		}
		return "is no condition: active and paused customers are in the list"
	case erp.ZeroRefused:
		return "is refused; the agent reads cards instead"
	}
	return "not known"
}

func shapeText(r *erp.ProbeReport) string {
	switch r.Shape {
	case "":
		return "no answer of get_ip_port_device_commutation could be read"
	case "unknown":
		return "shape not known: " + r.Fingerprint
	case "F":
		return "shape F: no row"
	}
	return "shape " + r.Shape
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

// size returns bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
