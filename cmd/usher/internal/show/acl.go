package show

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/agent"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/audit"
)

func newACL(c *cli.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "See, compare, open and remove the block lists in the kernel",
		Long: `The states of the ERP are kept in one table of nftables, "inet usher", by the running agent.

show, verify and clear work without an agent too: they read the kernel then, which only root may.`,
		Example: `  usher acl show
  usher acl show 1001
  usher acl show --as-nft
  usher acl diff
  usher acl open --for 30m --reason "work on the router"`,
		Args: cli.Subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newACLShow(c), newACLDiff(c), newACLVerify(c), newACLOpen(c), newACLClose(c), newACLClear(c))
	return cmd
}

// offline tells whether a question failed because no agent runs.
func offline(err error) bool { return errors.Is(err, console.ErrNoAgent) }

// readKernel runs f with the table of this host, without an agent.
func readKernel(f func(*acl.Reader) error) error {
	r := acl.NewReader(acl.Options{})
	err := f(r)
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: no agent answers, and only root may read the kernel's rules", err)
	}
	return errors.Join(err, r.Close())
}

func newACLShow(c *cli.Program) *cobra.Command {
	var path string
	var asNFT bool
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "show [CUSTOMER|IP]",
		Short: "Show the block lists, or what they do to a customer or an address",
		Long: `show tells for every set what is wanted and what the kernel has. With a customer or an address it tells in
which sets the addresses are, why, and how much was refused from and to them.

--as-nft prints the table as "nft list table inet usher" does, and behind it "netdev usher" where IPv6 needs that; of an agent in dry run, as it would be.

Without an agent the kernel is read (by root), and nothing is known of what is wanted or of customers.`,
		Example: `  usher acl show
  usher acl show 1001
  usher acl show 198.51.100.17 --output json
  usher acl show --as-nft | diff - <(nft list table inet usher)`,
		Args: cli.AtMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case asNFT && len(args) > 0:
				return cli.Usage(errors.New("--as-nft prints the whole table: want no customer or address with it"))
			case asNFT:
				return showNFT(c, cmd, path)
			case len(args) > 0:
				return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.ACLSubject, error) {
					s, err := cl.ACLOf(ctx, args[0])
					if offline(err) {
						return subjectOffline(ctx, args[0], err)
					}
					return s, err
				}, printACLSubject)
			default:
				return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.ACLSummary, error) {
					s, err := cl.ACL(ctx)
					if offline(err) {
						return summaryOffline(ctx, path)
					}
					return s, err
				}, printACLSummary)
			}
		},
	})
	cli.ConfigFlag(cmd, &path)
	cmd.Flags().BoolVar(&asNFT, "as-nft", false, "print the table as nft does")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func showNFT(c *cli.Program, cmd *cobra.Command, path string) error {
	return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.ACLText, error) {
		t, err := cl.ACLText(ctx)
		if !offline(err) {
			return t, err
		}
		cfg, err := config.Load(path)
		if err != nil {
			return nil, err // it says which rules the table should have
		}
		t = &console.ACLText{}
		return t, readKernel(func(r *acl.Reader) (err error) {
			t.Text, err = r.AsNFT(ctx, agent.HostPolicy(cfg))
			return err
		})
	}, func(w io.Writer, t *console.ACLText) error {
		_, err := io.WriteString(w, t.Text)
		return err
	})
}

func summaryOffline(ctx context.Context, path string) (*console.ACLSummary, error) {
	var policy ruleset.Policy
	cfg, cfgErr := config.Load(path)
	if cfgErr == nil {
		policy = agent.HostPolicy(cfg)
	}
	s := &console.ACLSummary{GuardDirect: []string{}, GuardVLAN: []string{}, Passed: []acl.Passed{}}
	return s, readKernel(func(r *acl.Reader) error {
		v, err := r.Read(ctx, policy)
		if err != nil {
			return err
		}
		s.Exists, s.Generation = v.Exists, v.Generation
		if cfgErr == nil {
			s.Defect = v.Defect // without a configuration nobody knows
			if p, err := r.Passed(ctx, policy); err == nil {
				s.Passed = p
			}
		}
		s.GuardDirect, s.GuardVLAN = v.ACL.Strings(access.SetGuardedDirect), v.ACL.Strings(access.SetGuardedVLAN)
		if left := time.Until(v.OpenUntil); left > 0 {
			s.Open = &console.MaintenanceView{Until: v.OpenUntil, LeftSeconds: left.Seconds()}
		}
		counts := v.ACL.Counts()
		for set := range access.Sets() {
			if !set.Optional() || counts[set] > 0 {
				s.Sets = append(s.Sets, console.ACLSetView{Name: set.String(), Have: counts[set]})
			}
		}
		return nil
	})
}

func subjectOffline(ctx context.Context, q string, noAgent error) (*console.ACLSubject, error) {
	ip, err := netip.ParseAddr(q)
	if err != nil {
		return nil, fmt.Errorf("%w (without an agent only addresses can be asked for)", noAgent)
	}
	a := console.ACLAddress{IP: ip, Want: "unknown", Have: []string{}, Why: "no agent runs that knows"}
	err = readKernel(func(r *acl.Reader) error {
		sets, err := r.Sets(ctx, ip)
		if err != nil {
			return err
		}
		for _, s := range sets {
			a.Have = append(a.Have, s.String())
		}
		counters, err := r.Counters(ctx, []netip.Addr{ip})
		a.Blocked = counters[ip]
		return err
	})
	return &console.ACLSubject{Query: q, Addresses: []console.ACLAddress{a}}, err
}

// openRow is the line that nobody must overlook.
func openRow(p cli.Paint, m *console.MaintenanceView) []string {
	text := fmt.Sprintf("EVERYBODY PASSES until %s (%s more)", m.Until.Local().Format(time.DateTime), time.Duration(m.LeftSeconds*float64(time.Second)).Round(time.Second))
	if m.Reason != "" {
		text += ": " + m.Reason
	}
	return []string{"maintenance", p.Red(text + "; end it with usher acl close")}
}

func printACLSummary(w io.Writer, s *console.ACLSummary) error {
	p, now := cli.NewPaint(w), time.Now()
	var rows [][]string
	switch {
	case s.DryRun:
		rows = append(rows, []string{"agent", "dry run: it computes and touches nothing"})
	case !s.Agent:
		rows = append(rows, []string{"agent", p.Red("none runs; this is what the kernel has")})
	}
	switch {
	case s.Open != nil:
		rows = append(rows, openRow(p, s.Open))
	}
	state := fmt.Sprintf("inet usher, generation %d of the ruleset", s.Generation)
	switch {
	case !s.Exists && s.DryRun:
		state = "none, as is right for a dry run"
		if s.Defect != "" && s.Defect != "there is none" {
			state = s.Defect
		}
	case !s.Exists:
		state = p.Red("none: nobody is blocked")
	case s.Defect != "":
		state += ", " + p.Red("not as configured: "+s.Defect)
	}
	rows = append(rows, []string{"table", state})
	for _, set := range s.Sets {
		want := "-"
		if set.Want != nil {
			want = fmt.Sprint(*set.Want)
		}
		have := fmt.Sprint(set.Have)
		if set.Want != nil && *set.Want != set.Have && !s.DryRun {
			have = p.Red(have)
		}
		rows = append(rows, []string{"set " + set.Name, fmt.Sprintf("want %s, have %s", want, have)})
	}
	guard := "off"
	if len(s.GuardDirect)+len(s.GuardVLAN) > 0 {
		guard = fmt.Sprintf("direct: %s; vlan: %s", listOf(s.GuardDirect), listOf(s.GuardVLAN))
	}
	rows = append(rows, []string{"source guard", guard})
	rows = append(rows, passedRows(s.Passed)...)
	if st := s.Status; st != nil && !st.DryRun {
		rows = append(rows, []string{"compared", cli.Ago(st.LastVerifiedAt, now)}, []string{"last change", fmt.Sprintf("%s, %d elements", cli.Ago(st.LastBatchAt, now), st.LastBatchChanges)})
		rows = append(rows, driftRows(p, st, now)...)
	}
	return cli.Table(w, rows)
}

// passedRows tell what came past a block, by the chain that let it.
func passedRows(list []acl.Passed) [][]string {
	var rows [][]string
	head := "past a block"
	for _, x := range list {
		if x.Packets > 0 {
			rows = append(rows, []string{head, fmt.Sprintf("%s %s: %d packets, %d bytes", x.Chain, x.What, x.Packets, x.Bytes)})
			head = ""
		}
	}
	return rows
}

func listOf(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "-"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	default:
		return strings.Join(names, ", ")
	}
}

// driftRows tell what somebody else did to the table.
func driftRows(p cli.Paint, st *access.Status, now time.Time) [][]string {
	var rows [][]string
	if !st.LastDriftAt.IsZero() {
		by := "by whom is not known"
		if len(st.LastDriftBy) > 0 {
			by = "by " + strings.Join(st.LastDriftBy, ", ")
		}
		rows = append(rows, []string{"drift", fmt.Sprintf("%s, %s: repaired (since the start %d extra, %d missing, %d times the rules)",
			cli.Ago(st.LastDriftAt, now), by, st.DriftExtra, st.DriftMissing, st.TableRepairs)})
		for _, what := range st.LastDrift {
			rows = append(rows, []string{"", what})
		}
	}
	if st.ConsecutiveFailures > 0 {
		rows = append(rows, []string{"", p.Red("error " + cli.Ago(st.LastErrorAt, now) + ": " + st.LastError)})
	}
	return rows
}

func printACLSubject(w io.Writer, s *console.ACLSubject) error {
	p := cli.NewPaint(w)
	var rows [][]string
	if s.Open != nil {
		rows = append(rows, openRow(p, s.Open))
	}
	if len(s.Addresses) == 0 {
		rows = append(rows, []string{s.Query, "it has no address"})
	}
	for _, a := range s.Addresses {
		have := strings.Join(a.Have, "+")
		if have == "" {
			have = "open"
		}
		if a.Error != "" {
			have = "unknown (" + a.Error + ")"
		} else if a.Want != "unknown" && have != a.Want && !s.DryRun {
			have = p.Red(have)
		}
		name := a.IP.String()
		if a.Subnet.IsValid() {
			name = a.Subnet.String()
		}
		rows = append(rows,
			[]string{p.Bold(name), fmt.Sprintf("wanted %s, in the kernel %s", a.Want, have)},
			[]string{"", "why: " + a.Why},
			[]string{"", fmt.Sprintf("refused: %d packets, %d bytes", a.Blocked.Packets, a.Blocked.Bytes)})
	}
	return cli.Table(w, rows)
}

func newACLDiff(c *cli.Program) *cobra.Command {
	var limit int
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "diff",
		Short: "Show what the agent would change in the kernel now",
		Long: `diff compares what is wanted with what the kernel has, and changes nothing. A running agent keeps the two equal;
of an agent in dry run it tells what would be done.

It exits 0 when there is no difference and 1 when there is one.`,
		Example: "  usher acl diff\n  usher acl diff --limit 1000 --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			equal := false
			err := cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.ACLDiff, error) {
				d, err := cl.ACLDiff(ctx, limit)
				equal = err == nil && d.Equal()
				return d, err
			}, printACLDiff)
			if err == nil && !equal {
				return cli.ErrSilent
			}
			return err
		},
	})
	cmd.Flags().IntVar(&limit, "limit", 20, "list at most so many changes")
	cli.Must(cmd.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return cmd
}

func printACLDiff(w io.Writer, d *console.ACLDiff) error {
	p := cli.NewPaint(w)
	switch {
	case d.Equal():
		_, err := fmt.Fprintln(w, "the kernel is as wanted")
		return err
	case !d.Exists:
		fmt.Fprintln(w, "table inet usher: there is none, it would be made")
	case d.Defect != "":
		fmt.Fprintf(w, "table inet usher would be replaced, its elements kept: %s\n", d.Defect)
	}
	for _, c := range d.Changes {
		line := fmt.Sprintf("%s %s %s", map[string]string{"add": "+", "remove": "-"}[c.Op], c.Set, c.Element)
		if c.Op == "add" {
			line = p.Green(line)
		} else {
			line = p.Red(line)
		}
		fmt.Fprintln(w, line)
	}
	if d.More > 0 {
		fmt.Fprintf(w, "and %d more (--limit)\n", d.More)
	}
	var parts []string
	for set := range access.Sets() {
		if d.Add[set]+d.Remove[set] > 0 {
			parts = append(parts, fmt.Sprintf("%s +%d -%d", set, d.Add[set], d.Remove[set]))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintln(w, "in all: "+strings.Join(parts, ", "))
	}
	return nil
}

// aclVerified is what "usher acl verify" tells.
type aclVerified struct {
	Agent  bool   `json:"agent"`
	Equal  bool   `json:"equal"`
	Defect string `json:"defect,omitempty"` // without an agent: how the table differs from that of the configuration
	access.Verification
}

func newACLVerify(c *cli.Program) *cobra.Command {
	var path string
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "verify",
		Short: "Read the whole table back now and repair it",
		Long: `verify has the agent read everything back and put right what is not as wanted. The agent does so by itself at
every change of somebody else's and each acl.verify_interval.

Without an agent the rules and sets are compared with those that the configuration leads to, not their elements,
and nothing is repaired.

It exits 0 when everything was as it should be and 1 when it was not, repaired or not.`,
		Example: "  usher acl verify\n  usher acl verify --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			equal := false
			err := cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*aclVerified, error) {
				v, err := cl.VerifyACL(ctx)
				out := &aclVerified{Agent: true}
				switch {
				case offline(err):
					out, err = verifyOffline(ctx, path)
				case err == nil:
					out.Verification, out.Equal = *v, v.Equal()
				}
				equal = err == nil && out.Equal
				return out, err
			}, printACLVerified)
			if err == nil && !equal {
				return cli.ErrSilent
			}
			return err
		},
	})
	cli.ConfigFlag(cmd, &path)
	return cmd
}

func verifyOffline(ctx context.Context, path string) (*aclVerified, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	out := &aclVerified{}
	return out, readKernel(func(r *acl.Reader) error {
		v, err := r.Read(ctx, agent.HostPolicy(cfg))
		out.Defect, out.Equal, out.Elements = v.Defect, err == nil && v.Defect == "", v.ACL.Counts()
		return err
	})
}

func printACLVerified(w io.Writer, v *aclVerified) error {
	n := 0
	for _, c := range v.Elements {
		n += c
	}
	var err error
	switch {
	case v.DryRun:
		_, err = fmt.Fprintln(w, "dry run: the kernel is not touched and not compared; see usher acl diff")
	case !v.Agent && v.Equal:
		_, err = fmt.Fprintf(w, "no agent runs; the table is as configured, with %d elements that nobody can compare\n", n)
	case !v.Agent:
		_, err = fmt.Fprintf(w, "no agent runs; the table is not as configured: %s; an agent puts it right when it starts\n", v.Defect)
	case v.Equal:
		_, err = fmt.Fprintf(w, "equal: %d elements read back in %.0f ms\n", n, 1000*v.Seconds)
	default:
		_, err = fmt.Fprintf(w, "repaired: %d extra and %d missing elements, rules replaced: %t, by %s\n  %s\n",
			v.Extra, v.Missing, v.Rebuilt, orDash(strings.Join(v.By, ", "), len(v.By) == 0), strings.Join(v.What, "\n  "))
	}
	for _, x := range v.PortalObstacles {
		if err == nil {
			_, err = fmt.Fprintln(w, "the portal is hidden: "+x)
		}
	}
	return err
}

func newACLOpen(c *cli.Program) *cobra.Command {
	var length time.Duration
	var reason string
	var closeIt bool
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "open --for DURATION",
		Short: "Let everybody through for a time",
		Long: `open is for maintenance: until its time is over nobody is blocked, neither by a state nor by the source guard.
The kernel itself ends it, whether an agent runs then or not; a restart of the agent does not. A second call
replaces the first. The status, the console's page, the log and the metric usher_acl_open_seconds tell of it.`,
		Example: `  usher acl open --for 30m
  usher acl open --for 2h --reason "exchange of the core switch"
  usher acl close`,
		Args: cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case closeIt && length != 0:
				return cli.Usage(errors.New("--for and --close: want one of them"))
			case closeIt:
				return closeACL(c, cmd)
			case length == 0:
				return cli.Usage(errors.New("say for how long: --for 30m, at most 24h"))
			case length < time.Second || length > acl.MaxOpen:
				return cli.Usage(fmt.Errorf("--for %s: want 1s to %s, such as 30m", length, acl.MaxOpen))
			}
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.MaintenanceView, error) {
				m, err := cl.OpenACL(ctx, length, reason)
				if offline(err) {
					err = fmt.Errorf("%w (without an agent: usher acl clear takes every block away)", err)
				}
				return m, err
			}, func(w io.Writer, m *console.MaintenanceView) error {
				return cli.Table(w, [][]string{openRow(cli.NewPaint(w), m)})
			})
		},
	})
	cmd.Flags().DurationVar(&length, "for", 0, "for how long, 1s to 24h")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log and the status")
	cmd.Flags().BoolVar(&closeIt, "close", false, "end it now, as usher acl close does")
	cli.Must(cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"10m", "30m", "1h", "2h"}, cobra.ShellCompDirectiveNoFileComp)))
	cli.Must(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))
	return cmd
}

func newACLClose(c *cli.Program) *cobra.Command {
	return c.SocketFlag(&cobra.Command{
		Use:     "close",
		Short:   "End a maintenance now",
		Long:    `close puts the block lists in force again before the time of "usher acl open" is over.`,
		Example: "  usher acl close",
		Args:    cli.Exactly(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return closeACL(c, cmd) },
	})
}

func closeACL(c *cli.Program, cmd *cobra.Command) error {
	return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.ACLClosed, error) { return cl.CloseACL(ctx) },
		func(w io.Writer, r *console.ACLClosed) error {
			text := "closed: the block lists are in force again"
			if !r.WasOpen {
				text = "it was not open: the block lists are in force"
			}
			_, err := fmt.Fprintln(w, text)
			return err
		})
}

func newACLClear(c *cli.Program) *cobra.Command {
	var path string
	var yes bool
	cmd := &cobra.Command{
		Use:   "clear",
		Short: "Remove the table from the kernel, and with it every block",
		Long: `clear is for a host on which usher will not run any more: an agent leaves the table in the kernel when it ends.

It is refused while an agent keeps the table, for that one would put it back within a second. Stop the agent first
(systemctl stop usher), or let everybody through for a time with "usher acl open", or set acl.enabled to false and restart
the agent before.

The configuration is only read for its state_dir, where the audit record is.`,
		Example: "  systemctl stop usher && usher acl clear\n  usher acl clear --yes",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				if err := confirm(cmd, "Remove the table inet usher from the kernel? Nobody is blocked then."); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), cli.ClientLimit)
			defer cancel()
			err := acl.Remove(ctx, acl.Options{})
			cli.Audit(cmd, stateDir(path), audit.Record{Act: audit.ACLClear, Result: resultOf(err, acl.ErrOwned, unix.EPERM)}, err)
			switch {
			case errors.Is(err, acl.ErrOwned):
				return fmt.Errorf("%w; stop the agent first, or use: usher acl open --for 30m", err)
			case errors.Is(err, unix.EPERM):
				return fmt.Errorf("%w: only root may change the kernel's rules", err)
			case err != nil:
				return err
			case c.Output == "json":
				return cli.PrintJSON(cmd.OutOrStdout(), map[string]bool{"removed": true})
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "removed: nobody is blocked; an agent that starts makes the table anew")
			return err
		},
	}
	cli.ConfigFlag(cmd, &path)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// stateDir is where the configuration at path has the audit record; empty: it cannot be read.
func stateDir(path string) string {
	cfg, err := config.Load(path)
	if err != nil {
		return ""
	}
	return cfg.StateDir
}

// resultOf is for the audit record; refusals are the errors by which nothing was done.
func resultOf(err error, refusals ...error) audit.Result {
	switch {
	case err == nil:
		return audit.Done
	case slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }):
		return audit.Refused
	default:
		return audit.Failed
	}
}

// confirm asks on a terminal; elsewhere it wants --yes.
func confirm(cmd *cobra.Command, question string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !cli.IsTerminal(in) {
		return cli.Usage(errors.New("this is no terminal to ask on: say --yes"))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
