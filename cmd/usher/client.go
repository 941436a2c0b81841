package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/syncer"
)

// defaultSocket is where "usher run" listens unless its configuration says otherwise.
const defaultSocket = "/run/usher/usher.sock"

// clientLimit bounds a question to the agent; a state change waits for the ERP.
const clientLimit = 60 * time.Second

// socketFlag adds --socket to a command that talks to the running agent.
func (c *cli) socketFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.socket, "socket", defaultSocket, "control socket of the running agent")
	must(cmd.MarkFlagFilename("socket"))
	return cmd
}

// ask runs f with a client of the running agent and prints its answer.
func ask[T any](c *cli, cmd *cobra.Command, f func(context.Context, *console.Client) (*T, error), print func(io.Writer, *T) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), clientLimit)
	defer cancel()
	v, err := f(ctx, &console.Client{Socket: c.socket})
	if err != nil {
		return err
	}
	if c.output == "json" {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return print(cmd.OutOrStdout(), v)
}

func newStatus(c *cli) *cobra.Command {
	return c.socketFlag(&cobra.Command{
		Use:   "status",
		Short: "Show what the running agent does",
		Long: `status asks the running agent for its snapshot, its DHCP server, the ACL and the MAC reports.
It exits 0 when the agent does its whole job and 1 when it is not ready.`,
		Example: "  usher status\n  usher status --output json | jq .sync.source",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ready := false
			err := ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Status, error) {
				st, err := cl.Status(ctx)
				ready = err == nil && st.Ready
				return st, err
			}, printStatus)
			if err == nil && !ready {
				return errSilent
			}
			return err
		},
	})
}

func printStatus(w io.Writer, st *console.Status) error {
	now := time.Now()
	p := newPaint(w)
	state := p.green("ready")
	if !st.Ready {
		state = p.red("not ready: " + strings.Join(st.NotReady, "; "))
	}
	rows := [][]string{
		{"agent", fmt.Sprintf("%s, version %s, up %s", state, st.Build.Version, time.Duration(st.UptimeSeconds*float64(time.Second)).Round(time.Second))},
	}
	if st.DryRun {
		rows = append(rows, []string{"", p.bold("dry run: nobody is answered, neither kernel nor ERP is touched")})
	}
	rows = append(rows, syncRows(p, st.Sync, now)...)
	if d := st.DHCP; d != nil {
		rows = append(rows, []string{"dhcp", fmt.Sprintf("%s, %d packets", orDash(d.Listen.String(), !d.Listen.IsValid()), d.Packets)})
		rows = append(rows, socketRows(p, d.Sockets)...)
		if d.Leases != nil {
			rows = append(rows, []string{"leases", fmt.Sprintf("%d bound, %d expired, %d released, %d declined", d.Leases.Bound, d.Leases.Expired, d.Leases.Released, d.Leases.Declined)})
		}
		for _, x := range d.Pools {
			text := fmt.Sprintf("%s: %.0f%% used, %d of %d free", x.Name, 100*x.Used, x.Free, x.Size)
			if x.Quarantined > 0 {
				text += fmt.Sprintf(", %d in quarantine", x.Quarantined)
			}
			if x.Full {
				text = p.red(text)
			}
			rows = append(rows, []string{"pool", text})
		}
		for _, o := range d.Outcomes[:min(8, len(d.Outcomes))] {
			rows = append(rows, []string{"", fmt.Sprintf("%8d  %s %s", o.Count, o.Type, o.Outcome)})
		}
	}
	if a := st.ACL; a != nil {
		text := fmt.Sprintf("%d stopped, %d paused in the kernel", a.HaveStopped, a.HavePaused)
		if a.DryRun {
			text = fmt.Sprintf("dry run: %d stopped, %d paused would be blocked", a.WantStopped, a.WantPaused)
		}
		if a.Pending > 0 {
			text += fmt.Sprintf(", %d changes pending", a.Pending)
		}
		if n := a.Have[access.SetGuests]; n > 0 && !a.DryRun {
			text += fmt.Sprintf(", %d guest addresses", n)
		}
		rows = append(rows, []string{"acl", text})
		if st.Open != nil {
			rows = append(rows, openRow(p, st.Open))
		}
		if !a.LastDriftAt.IsZero() {
			rows = append(rows, []string{"", driftText(a, now)})
		}
		if a.LastError != "" {
			rows = append(rows, []string{"", p.red("error " + ago(a.LastErrorAt, now) + ": " + a.LastError)})
		}
	}
	rows = append(rows, gardenRows(p, st)...)
	if r := st.Routes; r != nil {
		rows = append(rows, routeRows(p, r, now)...)
	}
	if o := st.Outbox; o != nil {
		rows = append(rows, []string{"reports", fmt.Sprintf("%d waiting, %d sent, %d refused", o.Depth, o.Sent, o.Refused)})
		if o.LastError != "" {
			rows = append(rows, []string{"", p.red("error " + ago(o.LastErrorAt, now) + ": " + o.LastError)})
		}
		for _, r := range o.RefusedList[:min(3, len(o.RefusedList))] {
			rows = append(rows, []string{"", fmt.Sprintf("refused %s %s: %s", r.IP, r.MAC, r.Reason)})
		}
	}
	return table(w, rows)
}

// socketRows tells of interfaces and of what is not as it should be.
func socketRows(p paint, s dhcpd.SocketStatus) [][]string {
	var rows [][]string
	if s.Interfaces > 0 {
		text := fmt.Sprintf("%d of %d interfaces served", s.Served, s.Interfaces)
		if n := len(s.Names); n > 0 {
			text += ": " + strings.Join(s.Names[:min(8, n)], ", ")
			if s.Served > 8 {
				text += ", ..."
			}
		}
		rows = append(rows, []string{"", text})
	}
	if s.Standby {
		rows = append(rows, []string{"", p.red(fmt.Sprintf("standby: %s is not on this host", s.AnswerWhileHolding))})
	}
	if s.ReceiveDrops > 0 {
		rows = append(rows, []string{"", p.red(fmt.Sprintf("%d packets lost before they were read: the receive queue was full", s.ReceiveDrops))})
	}
	for _, id := range s.ForeignServerIDs {
		rows = append(rows, []string{"", p.red(fmt.Sprintf("server id %s is no address of this host", id))})
	}
	return rows
}

func syncRows(p paint, s syncer.Status, now time.Time) [][]string {
	rows := [][]string{{"snapshot", p.red("none")}}
	if s.Source != "" {
		rows = [][]string{
			{"snapshot", fmt.Sprintf("source %s, fetched %s", s.Source, ago(s.FetchedAt, now))},
			{"", fmt.Sprintf("%d bindings of %d subscribers on %d switches", s.Counts.Bindings, s.Counts.Subscribers, s.Counts.Devices)},
			{"", fmt.Sprintf("%d active, %d paused, %d stopped, %d unknown", s.Counts.Active, s.Counts.Paused, s.Counts.Stopped, s.Counts.Unknown)},
		}
	}
	if s.StatesAt.After(s.FetchedAt) && s.Source != "" {
		rows = append(rows, []string{"", fmt.Sprintf("states read %s, everything again %s", ago(s.StatesAt, now), ago(s.NextFull, now))})
	}
	if h := s.Hints; h.Received > 0 {
		text := fmt.Sprintf("%d, the last %s", h.Received, ago(h.LastAt, now))
		if !h.LastAppliedAt.IsZero() {
			text += fmt.Sprintf(", applied within %.0f ms", 1000*h.LastSeconds)
		}
		if h.Pending > 0 {
			text += fmt.Sprintf(", %d customers wait", h.Pending)
		}
		rows = append(rows, []string{"hints", text})
		if h.LastErrorAt.After(h.LastAppliedAt) {
			rows = append(rows, []string{"", p.red("error " + ago(h.LastErrorAt, now) + ": " + h.LastError)})
		}
	}
	kinds := make([]string, 0, len(s.Problems))
	for k, n := range s.Problems {
		if n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, k))
		}
	}
	if slices.Sort(kinds); len(kinds) > 0 {
		rows = append(rows, []string{"problems", strings.Join(kinds, ", ")})
	}
	if s.ConsecutiveFailures > 0 {
		rows = append(rows, []string{"erp", p.red(fmt.Sprintf("%d polls failed in a row, the last %s: %s", s.ConsecutiveFailures, ago(s.LastErrorAt, now), s.LastError))})
	}
	if s.StateFailures > 0 {
		rows = append(rows, []string{"erp", p.red(fmt.Sprintf("%d polls of states failed in a row, the last %s: %s", s.StateFailures, ago(s.LastErrorAt, now), s.LastError))})
	}
	if s.Held != nil {
		rows = append(rows, []string{"guard", p.red("holds a fetch: " + s.Held.Decision.Reason + " (see: usher guard show)")})
	}
	return rows
}

func newExplain(c *cli) *cobra.Command {
	return c.socketFlag(&cobra.Command{
		Use:   "explain IP|MAC|CUSTOMER",
		Short: "Say why a subscriber has its address, or has none",
		Long: `explain asks the running agent for everything it knows about an address, a MAC or a customer id:
the binding, the lease, the ACL, waiting reports, defects of the ERP's data, the newest packets with
their outcome, and what the server would do with a packet now.`,
		Example: "  usher explain 192.0.2.17\n  usher explain 00:00:5e:00:53:01\n  usher explain 1001 --output json",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Explanation, error) {
				return cl.Explain(ctx, args[0])
			}, printExplanation)
		},
	})
}

func printExplanation(w io.Writer, x *console.Explanation) error {
	p := newPaint(w)
	fmt.Fprintf(w, "%s\n\n", p.bold(x.Summary))
	var rows [][]string
	for _, b := range x.Bindings {
		port := b.PortName
		if port == "" && b.Port != 0 {
			port = fmt.Sprint(b.Port)
		}
		rows = append(rows, []string{"binding", fmt.Sprintf("customer %d  %s  %s  %s port %s", b.Subscriber, b.IP, orDash(b.MAC.String(), b.MAC.IsZero()), orDash(b.DeviceName, b.DeviceName == ""), orDash(port, port == ""))})
		access := fmt.Sprintf("%s: wanted %s, in the kernel %s", b.IP, b.ACL.Want, b.ACL.Have)
		if b.ACL.Exempt != "" {
			access += fmt.Sprintf(", exempt (%s)", b.ACL.Exempt)
		}
		rows = append(rows, []string{"acl", access})
		if b.Report != nil {
			rows = append(rows, []string{"report", fmt.Sprintf("%s waits to be told to the ERP (%d attempts)", b.Report.MAC, b.Report.Attempts)})
		}
	}
	for _, l := range x.Leases {
		rows = append(rows, []string{"lease", fmt.Sprintf("%s  %s  %s until %s%s", l.IP, l.MAC, l.State, l.Expires.Local().Format(time.DateTime), ofPool(l.Pool))})
	}
	for _, pr := range x.Problems {
		rows = append(rows, []string{"problem", fmt.Sprintf("%s: %s", pr.Kind, pr.Detail)})
	}
	if x.Would != nil {
		rows = append(rows, []string{"now", fmt.Sprintf("a DISCOVER would end in %s: %s", x.Would.Outcome, x.Would.Text)})
		if how := matchedBy(x.Would); how != "" {
			rows = append(rows, []string{"found by", how})
		}
		if x.Would.Profile != "" {
			how := fmt.Sprintf("read by profile %s: circuit-id %s, remote-id %s", x.Would.Profile, x.Would.Circuit, x.Would.Remote)
			if x.Would.Fault != "" {
				how = fmt.Sprintf("not read by profile %s, %s: circuit-id %s, remote-id %s", x.Would.Profile, x.Would.Fault, x.Would.Circuit, x.Would.Remote)
			}
			rows = append(rows, []string{"option 82", how})
			if x.Would.RelaySays != "" {
				rows = append(rows, []string{"", "the relay also says: " + x.Would.RelaySays})
			}
		}
	}
	for _, e := range x.Events {
		rows = append(rows, []string{"packet", fmt.Sprintf("%s  %s %s  %s", e.Time.Local().Format("15:04:05.000"), e.Type, e.Outcome, orDash(e.IP().String(), !e.IP().IsValid()))})
	}
	return table(w, rows)
}

func ofPool(name string) string {
	if name == "" {
		return ""
	}
	return "  pool " + name
}

// matchedBy says by what the client would be found, and what else is known of it.
func matchedBy(w *console.WouldView) string {
	var s []string
	if w.MatchedBy != "" {
		s = append(s, w.MatchedBy)
	}
	if w.VLAN != 0 {
		s = append(s, fmt.Sprintf("VLAN %d of interface %s", w.VLAN, w.Interface))
	}
	if w.ClientID != "" {
		s = append(s, "client-id "+w.ClientID)
	}
	return strings.Join(s, ", ")
}

func orDash(s string, empty bool) string {
	if empty {
		return "-"
	}
	return s
}

func newGuard(c *cli) *cobra.Command {
	guard := &cobra.Command{
		Use:   "guard",
		Short: "See and decide what the guard holds",
		Long: `The guard holds a fetch that would remove, move or block more subscribers than configured. The earlier
snapshot stays in use until the fetch is accepted or the ERP answers differently.`,
		Example: "  usher guard show\n  usher guard accept\n  usher guard reject",
		Args:    subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	guard.AddCommand(c.socketFlag(&cobra.Command{
		Use:     "show",
		Short:   "Show what is held and why",
		Example: "  usher guard show\n  usher guard show --output json",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.GuardView, error) { return cl.Guard(ctx) }, printGuard)
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
		cmd := c.socketFlag(&cobra.Command{
			Use:     d.verb,
			Short:   d.short,
			Long:    d.long,
			Example: "  usher guard " + d.verb + "\n  usher guard " + d.verb + " --fingerprint 0123456789abcdef",
			Args:    exactly(0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.GuardResult, error) {
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
		{"since", fmt.Sprintf("%s, the same answer came %d times", ago(h.Since, time.Now()), h.Seen)},
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
	return table(w, rows)
}

func newCustomer(c *cli) *cobra.Command {
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
		Args: subcommand,
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
		customer.AddCommand(c.socketFlag(&cobra.Command{
			Use:     s.verb + " ID",
			Short:   s.short,
			GroupID: groupAgent,
			Long: s.short + `.

The running agent calls state_change of the ERP and, when that has agreed, applies the state to the
kernel without waiting for a poll. A billing that is imported into the ERP may overwrite the state later.
("usher customer state-change" tells the ERP alone, without an agent.)`,
			Example: "  usher customer " + s.verb + " 1001",
			Args:    exactly(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				id, err := strconv.ParseInt(args[0], 10, 64)
				if err != nil || id <= 0 {
					return usageError{fmt.Errorf("customer id %q: want a number from 1", args[0])}
				}
				return ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.StateChange, error) {
					return cl.SetState(ctx, provision.SubscriberID(id), s.state)
				}, printStateChange)
			},
		}))
	}
	addActions(c, customer, "customer")
	return customer
}

func printStateChange(w io.Writer, ch *console.StateChange) error {
	_, err := fmt.Fprintf(w, "customer %d: %s, was %s (ERP %.0f ms, kernel %.0f ms)\n", ch.Subscriber, ch.State, ch.Before, 1000*ch.ERPSeconds, 1000*ch.KernelSeconds)
	return err
}

// driftText tells the newest change by somebody else.
func driftText(a *access.Status, now time.Time) string {
	who, what := "somebody", "rules"
	if len(a.LastDriftBy) > 0 {
		who = strings.Join(a.LastDriftBy, ", ")
	}
	if len(a.LastDrift) > 0 {
		what = strings.Join(a.LastDrift, ", ")
	}
	return fmt.Sprintf("repaired %s what %s had changed: %s", ago(a.LastDriftAt, now), who, what)
}

// gardenRows are the lines of "usher status" about the gardens.
func gardenRows(p paint, st *console.Status) [][]string {
	g := st.Garden
	if g == nil || len(g.Paused)+len(g.Guests)+len(g.Names) == 0 {
		return nil
	}
	addresses, failing := 0, []string{}
	for _, n := range g.Names {
		addresses += len(n.Addresses)
		if n.Error != "" {
			failing = append(failing, n.Name)
		}
	}
	rows := [][]string{{"garden", fmt.Sprintf("%d prefixes for paused, %d for guests; %d names with %d addresses",
		len(g.Paused), len(g.Guests), len(g.Names), addresses)}}
	if len(failing) > 0 {
		rows = append(rows, []string{"", p.red("cannot be looked up: " + strings.Join(failing, ", "))})
	}
	return rows
}
