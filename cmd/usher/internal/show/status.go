// Package show is the commands that look at a running agent, and into the
// kernel where none runs: status, explain, option82, pools, guard, acl and routes.
package show

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/provision/wayback"
)

// Commands returns the views of a running agent.
func Commands(c *cli.Program) []*cobra.Command {
	return []*cobra.Command{newStatus(c), newExplain(c), newOption82(c), newPools(c), newGuard(c), newLeases(c), newACL(c), newRoutes(c)}
}

func newStatus(c *cli.Program) *cobra.Command {
	return c.SocketFlag(&cobra.Command{
		Use:   "status",
		Short: "Show what the running agent does",
		Long: `status asks the running agent for its snapshot, its DHCP server, the ACL and the MAC reports.
It exits 0 when the agent does its whole job and 1 when it is not ready, or when a source of the ERP
(bindings, states, flags, devices, subnets, former customers) cannot be read or is not believed.`,
		Example: "  usher status\n  usher status --output json | jq .sync.source",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ready := false
			err := cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Status, error) {
				st, err := cl.Status(ctx)
				ready = err == nil && st.Ready && len(st.Degraded) == 0
				return st, err
			}, printStatus)
			if err == nil && !ready {
				return cli.ErrSilent
			}
			return err
		},
	})
}

func printStatus(w io.Writer, st *console.Status) error {
	now := time.Now()
	p := cli.NewPaint(w)
	state := p.Green("ready")
	switch {
	case !st.Ready:
		state = p.Red("not ready: " + strings.Join(st.NotReady, "; "))
	case len(st.Degraded) > 0:
		state = p.Red("ready, the ERP answers only in part")
	}
	rows := [][]string{
		{"agent", fmt.Sprintf("%s, version %s, up %s", state, st.Build.Version, time.Duration(st.UptimeSeconds*float64(time.Second)).Round(time.Second))},
	}
	if st.DryRun {
		rows = append(rows, []string{"", p.Bold("dry run: nobody is answered, neither kernel nor ERP is touched")})
	}
	rows = append(rows, stateRows(p, st.State)...)
	rows = append(rows, fileRows(p, st.Files)...)
	rows = append(rows, interfaceRows(p, st.Config)...)
	rows = append(rows, syncRows(p, st.Sync, now)...)
	for _, call := range st.ERPCalls {
		if call.Slow(now) {
			rows = append(rows, []string{"erp", p.Red(call.Text(now))})
		}
	}
	if d := st.DHCP; d != nil {
		rows = append(rows, []string{"dhcp", fmt.Sprintf("%s, %d packets", orDash(d.Listen.String(), !d.Listen.IsValid()), d.Packets)})
		rows = append(rows, socketRows(p, d.Sockets)...)
		rows = append(rows, wayRows(p, d.WaysBack)...)
		rows = append(rows, senderRows(p, d.Senders, now)...)
		rows = append(rows, byMACRows(p, d.ByMAC)...)
		if d.Leases != nil {
			rows = append(rows, []string{"leases", fmt.Sprintf("%d bound, %d kept, %d expired, %d released, %d declined", d.Leases.Bound, d.Leases.Kept, d.Leases.Expired, d.Leases.Released, d.Leases.Declined)})
		}
		rows = append(rows, overruledRows(p, d.Overruled)...)
		for _, x := range d.Pools {
			text := fmt.Sprintf("%s: %.0f%% used, %d of %d free", x.Name, 100*x.Used, x.Free, x.Size)
			if x.Quarantined > 0 {
				text += fmt.Sprintf(", %d in quarantine", x.Quarantined)
			}
			if x.Full {
				text = p.Red(text)
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
		rows = append(rows, ipv6Rows(p, a.IPv6)...)
		if st.Open != nil {
			rows = append(rows, openRow(p, st.Open))
		}
		rows = append(rows, withheldRows(p, a)...)
		for _, x := range a.Refused[:min(3, len(a.Refused))] {
			rows = append(rows, []string{"", p.Red(x.Text())})
		}
		if !a.LastDriftAt.IsZero() {
			rows = append(rows, []string{"", driftText(a, now)})
		}
		for _, x := range a.PortalObstacles {
			rows = append(rows, []string{"", p.Red("the portal is hidden: " + x)})
		}
		if a.LastError != "" {
			rows = append(rows, []string{"", p.Red("error " + cli.Ago(a.LastErrorAt, now) + ": " + a.LastError)})
		}
	}
	rows = append(rows, gardenRows(p, st)...)
	rows = append(rows, doorRows(p, st.Doors)...)
	if r := st.Routes; r != nil {
		rows = append(rows, routeRows(p, r, now)...)
	}
	if o := st.Outbox; o != nil {
		rows = append(rows, []string{"reports", fmt.Sprintf("%d waiting, %d sent, %d refused", o.Depth, o.Sent, o.Refused)})
		if o.Unwritten > 0 {
			rows = append(rows, []string{"", p.Red(fmt.Sprintf("%d not on disk yet", o.Unwritten))})
		}
		if o.LastError != "" {
			rows = append(rows, []string{"", p.Red("error " + cli.Ago(o.LastErrorAt, now) + ": " + o.LastError)})
		}
		for _, r := range o.RefusedList[:min(3, len(o.RefusedList))] {
			rows = append(rows, []string{"", fmt.Sprintf("refused %s %s: %s", r.IP, r.MAC, r.Reason)})
		}
		if o.Overruled > 0 {
			rows = append(rows, []string{"", fmt.Sprintf("%d dropped, for the ERP has got another MAC since the client got the address, or gave the address to another customer", o.Overruled)})
		}
		for _, r := range o.OverruledList[:min(3, len(o.OverruledList))] {
			rows = append(rows, []string{"", fmt.Sprintf("dropped %s %s: %s", r.IP, r.MAC, r.Reason())})
		}
		if o.Foreign > 0 {
			rows = append(rows, []string{"", fmt.Sprintf("%d dropped, for the MAC is that of another client, who is found by it", o.Foreign)})
		}
		for _, r := range o.ForeignList[:min(3, len(o.ForeignList))] {
			rows = append(rows, []string{"", fmt.Sprintf("dropped %s %s of customer %d: %s", r.IP, r.MAC, r.Subscriber, r.Reason())})
		}
	}
	return cli.Table(w, rows)
}

// withheldRows tell of customers' addresses that are never blocked.
func withheldRows(p cli.Paint, a *access.Status) [][]string {
	n := 0
	for _, x := range a.Withheld {
		n += x
	}
	var rows [][]string
	for i, x := range a.WithheldList {
		if i == 3 {
			return append(rows, []string{"", fmt.Sprintf("and %d more that are never blocked", n-i)})
		}
		rows = append(rows, []string{"", p.Red(x.Text())})
	}
	return rows
}

// stateRows tell of a disk that cannot be used, and of what it has lost.
func stateRows(p cli.Paint, st *console.StateStatus) [][]string {
	if st == nil {
		return nil
	}
	var rows [][]string
	add := func(head, text string, colour func(string) string) {
		for i, part := range wrap(text, textWidth) {
			rows = append(rows, []string{[...]string{head, ""}[min(i, 1)], colour(part)})
		}
	}
	if st.Text != "" {
		add("disk", st.Text, p.Red)
		add("", st.Advice, p.Faint)
	}
	if st.Growing != "" {
		add("disk", st.Growing, p.Red)
		add("", st.GrowingAdvice, p.Faint)
	}
	if st.Lost != "" {
		add("damage", st.Lost, p.Red)
		add("", st.LostAdvice, p.Faint)
		for _, x := range st.What {
			rows = append(rows, []string{"", x})
		}
		if more := st.Unread - len(st.What); more > 0 && len(st.What) > 0 {
			rows = append(rows, []string{"", fmt.Sprintf("and %d more", more)})
		}
		for _, x := range st.PutAside {
			rows = append(rows, []string{"", "kept: " + x})
		}
	}
	return rows
}

// fileRows tell of files of state_dir that cannot be written, or could not be read.
func fileRows(p cli.Paint, list []console.FileTrouble) [][]string {
	var rows [][]string
	for _, f := range list {
		for i, part := range wrap(f.Text, textWidth) {
			rows = append(rows, []string{[...]string{"file", ""}[min(i, 1)], p.Red(part)})
		}
		for _, part := range wrap(f.Advice, textWidth) {
			rows = append(rows, []string{"", p.Faint(part)})
		}
	}
	return rows
}

// overruledRows tell of the leases for whose addresses somebody wrote another MAC into the ERP.
func overruledRows(p cli.Paint, st console.OverruledStatus) [][]string {
	if st.Count == 0 {
		return nil
	}
	rows := [][]string{{"new MACs", fmt.Sprintf("for %d live leases the ERP has a MAC that is newer", st.Count)}}
	for _, v := range st.First[:min(3, len(st.First))] {
		for _, part := range wrap(v.Text, textWidth) {
			rows = append(rows, []string{"", p.Faint(part)})
		}
	}
	return rows
}

// byMACRows tell what clients were given, and refused, by their MAC alone.
func byMACRows(p cli.Paint, st console.ByMACStatus) [][]string {
	var rows [][]string
	add := func(text, hint string) {
		rows = append(rows, []string{"by MAC", text})
		for _, part := range wrap(hint, textWidth) {
			rows = append(rows, []string{"", p.Faint(part)})
		}
	}
	for _, n := range st.Given {
		clients := fmt.Sprintf("%d clients lately", n.Clients)
		if n.Clients == 1 {
			clients = "1 client lately"
		}
		add(fmt.Sprintf("given, %s: %s, %d ACKs", n.Line, clients, n.Acks), n.Text+" "+n.Advice)
	}
	if st.Elsewhere > 0 {
		add(fmt.Sprintf("refused, %s: %d packets", outcome.MACElsewhere, st.Elsewhere), outcome.MACElsewhere.Explain()+" "+st.Advice)
	}
	return rows
}

// How long lines are at most, where they can be broken: those to paste and those to read.
const (
	pasteWidth = 84
	textWidth  = 88
)

// senderRows tell who brings clients' packets: what is believed only because the configuration does not say otherwise,
// then who is refused, then the relays and switches that are believed.
func senderRows(p cli.Paint, st senders.Status, now time.Time) [][]string {
	var rows [][]string
	add := func(head, text string) { rows = append(rows, []string{head, text}) }
	wrapped := func(head, text string, colour func(string) string) {
		for i, part := range wrap(text, textWidth) {
			add([...]string{head, ""}[min(i, 1)], colour(part))
		}
	}
	lines := func(all []string) {
		for _, l := range all {
			for _, part := range senders.Fold(l, pasteWidth) {
				add("", "  "+part)
			}
		}
	}
	for _, w := range st.Warnings {
		wrapped("warning", w.Text, p.Red)
		lines(w.Paste)
		if len(w.Or) > 0 {
			add("", "or")
			lines(w.Or)
		}
	}
	told := map[senders.State]bool{}
	for _, s := range append(append([]senders.Sender{}, st.Relays...), st.Switches...) {
		if s.State.Refused() == 0 {
			continue
		}
		add("refused", p.Red(senderText(s, now)))
		if !told[s.State] {
			told[s.State] = true
			wrapped("", whatToDo(s.State), p.Faint)
		}
		if len(s.Paste) > 0 {
			add("", "if it is yours:")
			lines(s.Paste)
		}
	}
	for _, s := range st.Relays {
		if s.State.Refused() != 0 {
			continue
		}
		add("relay", senderText(s, now))
		if text := option82Text(s, now); text != "" {
			add("", p.Faint(text))
		}
		if len(s.PasteTrust) > 0 {
			add("", "if it inserts option 82, or drops what clients write:")
			lines(s.PasteTrust)
		}
	}
	for _, s := range st.Switches {
		if s.State.Refused() == 0 {
			add("option 82", senderText(s, now))
		}
	}
	for _, n := range st.Networks {
		add("networks", networksCount(n, now))
		wrapped("", whatNetworks(n), p.Faint)
		add("", "if they share one wire:")
		lines([]string{n.Paste})
	}
	if st.More > 0 {
		add("", fmt.Sprintf("and %d more relays and interfaces: GET /v1/senders of the control socket has all", st.More))
	}
	return rows
}

// whatToDo says why senders in a state are refused, and what an operator may do.
func whatToDo(s senders.State) string {
	o := s.Refused()
	if o == outcome.Option82Untrusted { // the outcome is that of a client whom nothing else tells
		return "Option 82 that no relay forwarded is echoed there and not believed. " +
			"Add the interface to dhcp.trusted_interfaces if a switch there drops option 82 of customers and inserts its own; else a client writes it itself, or its switch lets it through."
	}
	return o.Explain() + " " + console.Advice(o)
}

// networksCount tells of clients in one network with addresses of another.
func networksCount(n senders.Networks, now time.Time) string {
	var s []string
	if n.Given > 0 {
		s = append(s, counted(n.Given, "ACK on its line", "ACKs on their lines"))
	}
	if n.Refused > 0 {
		s = append(s, counted(n.Refused, "packet refused", "packets refused"))
	}
	return fmt.Sprintf("clients in %s, addresses of %s: %s, the last %s", n.Client, n.Address, strings.Join(s, ", "), cli.Ago(n.LastSeen, now))
}

func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// whatNetworks says what that means, and what an operator may do.
func whatNetworks(n senders.Networks) string {
	if n.Given > 0 {
		return "The relay or interface is of the first network. An address of the second one, which has another gateway, was given because the line of the client has no other."
	}
	return "The relay or interface is of the first network. By MAC alone no address of the second one is given, for its gateway is another. " +
		"Customers who have moved need an address of the first one in the ERP."
}

// wrap breaks text between words.
func wrap(text string, width int) []string {
	var out []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			out, line = append(out, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(out, line)
}

// senderText tells of one relay or interface.
func senderText(s senders.Sender, now time.Time) string {
	who := "on " + s.Interface
	if s.GIAddr.IsValid() {
		who = fmt.Sprintf("%s from %s", s.GIAddr, s.Source)
		if s.Interface != "" {
			who += " on " + s.Interface
		}
	}
	if s.Query {
		who += " (leasequery)"
	}
	packets := fmt.Sprintf("%d packets, the last", s.Packets)
	if s.Packets == 1 {
		packets = "1 packet,"
	}
	return fmt.Sprintf("%s: %s, %s %s", who, s.State, packets, cli.Ago(s.LastSeen, now))
}

// option82Text says how many packets of a relay had option 82, and what is thought of it; empty: nothing is known.
func option82Text(s senders.Sender, now time.Time) string {
	var text string
	switch {
	case s.With+s.Without == 0: // of an older agent
		return ""
	case s.With == 0:
		return "none with option 82"
	case s.Without == 0:
		text = "all with option 82"
	default:
		text = fmt.Sprintf("%d with option 82, %d without it, of those the last %s", s.With, s.Without, cli.Ago(s.LastBare, now))
	}
	switch s.Option82 {
	case v4.InfoUntrusted:
		text += "; it is not believed"
	case v4.InfoUnsaid:
		text += "; it is believed because dhcp.option82_relays is left out"
	}
	return text
}

// socketRows tells of interfaces and of what is not as it should be.
func socketRows(p cli.Paint, s dhcpd.SocketStatus) [][]string {
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
		rows = append(rows, []string{"", p.Red(fmt.Sprintf("standby: %s is not on this host", s.AnswerWhileHolding))})
	}
	if s.ReceiveDrops > 0 {
		rows = append(rows, []string{"", p.Red(fmt.Sprintf("%d packets lost before they were read: the receive queue was full", s.ReceiveDrops))})
	}
	for _, id := range s.ForeignServerIDs {
		rows = append(rows, []string{"", p.Red(fmt.Sprintf("server id %s is no address of this host", id))})
	}
	return rows
}

// wayRows tell of relays whose packets the kernel drops.
func wayRows(p cli.Paint, found []wayback.Finding) [][]string {
	var rows [][]string
	for i, f := range found {
		if i == 3 {
			return append(rows, []string{"", fmt.Sprintf("and %d more relays whose packets the kernel drops", len(found)-i)})
		}
		rows = append(rows, []string{"", p.Red(f.Text)})
	}
	return rows
}

// retryText says when the preferred source is tried again.
func retryText(f *syncer.Fallback, now time.Time) string {
	if f.Fetches <= 1 {
		return "with the next whole fetch"
	}
	text := fmt.Sprintf("after %d more whole fetches", f.Fetches-1)
	if !f.RetryAt.IsZero() {
		text += ", about " + cli.Ago(f.RetryAt, now)
	}
	return text
}

func syncRows(p cli.Paint, s syncer.Status, now time.Time) [][]string {
	rows := [][]string{{"snapshot", p.Red("none")}}
	if s.Source != "" {
		rows = [][]string{
			{"snapshot", fmt.Sprintf("source %s, fetched %s", s.Source, cli.Ago(s.FetchedAt, now))},
			{"", fmt.Sprintf("%d bindings of %d subscribers on %d switches", s.Counts.Bindings, s.Counts.Subscribers, s.Counts.Devices)},
			{"", fmt.Sprintf("%d active, %d paused, %d stopped, %d unknown", s.Counts.Active, s.Counts.Paused, s.Counts.Stopped, s.Counts.Unknown)},
		}
	}
	if f := s.Fallback; f != nil {
		rows = append(rows, []string{"", fmt.Sprintf("composed since %s: %s; the direct source is tried again %s", cli.Ago(f.Since, now), f.Reason, retryText(f, now))})
	}
	if s.StatesAt.After(s.FetchedAt) && s.Source != "" {
		again := "again " + cli.Ago(s.NextFull, now)
		if s.Fetching && s.NextFull.Before(now) {
			again = "is being read again"
		}
		rows = append(rows, []string{"", fmt.Sprintf("states read %s, everything %s", cli.Ago(s.StatesAt, now), again)})
	}
	if h := s.Hints; h.Received > 0 {
		text := fmt.Sprintf("%d, the last %s", h.Received, cli.Ago(h.LastAt, now))
		if !h.LastAppliedAt.IsZero() {
			text += fmt.Sprintf(", applied within %.0f ms", 1000*h.LastSeconds)
		}
		if h.Pending > 0 {
			text += fmt.Sprintf(", %d customers wait", h.Pending)
		}
		rows = append(rows, []string{"hints", text})
		if h.LastErrorAt.After(h.LastAppliedAt) {
			rows = append(rows, []string{"", p.Red("error " + cli.Ago(h.LastErrorAt, now) + ": " + h.LastError)})
		}
	}
	if kinds := cli.Counts(s.Problems); kinds != "" {
		rows = append(rows, []string{"problems", kinds})
	}
	if s.ConsecutiveFailures > 0 {
		rows = append(rows, []string{"erp", p.Red(fmt.Sprintf("%d polls failed in a row, the last %s: %s", s.ConsecutiveFailures, cli.Ago(s.LastErrorAt, now), s.LastError))})
	}
	if s.StateFailures > 0 {
		rows = append(rows, []string{"erp", p.Red(fmt.Sprintf("%d polls of states failed in a row, the last %s: %s", s.StateFailures, cli.Ago(s.LastErrorAt, now), s.LastError))})
	}
	rows = append(rows, sourceRows(p, s.Sources, now)...)
	if s.Held != nil {
		rows = append(rows, []string{"guard", p.Red("holds: " + s.Held.Decision.Reason + " (see: usher guard show)")})
	}
	if u := s.Unconfirmed; u != nil {
		rows = append(rows, []string{"guard", p.Red(fmt.Sprintf("let %d customers in %s, more than max_opened, because their cards could not be read: %s", u.Count, cli.Ago(u.At, now), u.Error))})
	}
	return rows
}

func orDash(s string, empty bool) string {
	if empty {
		return "-"
	}
	return s
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
	return fmt.Sprintf("repaired %s what %s had changed: %s", cli.Ago(a.LastDriftAt, now), who, what)
}

// gardenRows are the lines of "usher status" about the gardens.
func gardenRows(p cli.Paint, st *console.Status) [][]string {
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
		rows = append(rows, []string{"", p.Red("cannot be looked up: " + strings.Join(failing, ", "))})
	}
	return rows
}
