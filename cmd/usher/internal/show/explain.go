package show

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/outcome"
)

func newExplain(c *cli.Program) *cobra.Command {
	source := ""
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "explain IP|MAC|CUSTOMER",
		Short: "Say why a subscriber has its address, or has none",
		Long: `explain asks the running agent for everything it knows about an address, a MAC or a customer id:
the binding, the lease, the ACL, waiting reports, defects of the ERP's data, the newest packets with
their outcome and who vouched for where they came from, and what the server would do with a packet now. If that one would be refused
for the way that it comes, it says so; --source asks as if the client's relay sent from another address.`,
		Example: "  usher explain 192.0.2.17\n  usher explain 00:00:5e:00:53:01\n  usher explain 1001 --output json\n  usher explain 1001 --source 10.0.0.2",
		Args:    cli.Exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var from netip.Addr
			if source != "" {
				var err error
				if from, err = netip.ParseAddr(source); err != nil || !from.Is4() {
					return cli.Usage(fmt.Errorf("--source %q: want an IPv4 address", source))
				}
			}
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Explanation, error) {
				return cl.ExplainFrom(ctx, args[0], from)
			}, printExplanation)
		},
	})
	cmd.Flags().StringVar(&source, "source", "", "address that the client's relay would send from")
	return cmd
}

func printExplanation(w io.Writer, x *console.Explanation) error {
	p := cli.NewPaint(w)
	fmt.Fprintf(w, "%s\n\n", p.Bold(x.Summary))
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
			text := fmt.Sprintf("%s waits to be told to the ERP (%d attempts)", b.Report.MAC, b.Report.Attempts)
			if b.Report.Damped {
				text = fmt.Sprintf("%s is told to the ERP at %s, unless another client has the address then: the ERP was told of another change within the hour", b.Report.MAC, b.Report.NextTry.Local().Format(time.DateTime))
			}
			rows = append(rows, []string{"report", text})
		}
	}
	for _, n := range x.Subnets {
		rows = append(rows, []string{"subnet", fmt.Sprintf("customer %d  %s", n.Subscriber, n.Subnet)},
			[]string{"acl", fmt.Sprintf("%s: wanted %s, in the kernel %s", n.Subnet, n.ACL.Want, n.ACL.Have)})
	}
	for _, l := range x.Leases {
		rows = append(rows, []string{"lease", fmt.Sprintf("%s  %s  %s%s", l.IP, l.MAC, l.Standing(time.Now()), ofPool(l.Pool))})
		rows = append(rows, []string{"", fmt.Sprintf("  since %s, given at: %s", l.Start.Local().Format(time.DateTime), l.Place)})
		if l.Overruled != nil {
			rows = append(rows, []string{"", "  " + l.Overruled.Text})
		}
	}
	for _, h := range x.Held {
		rows = append(rows, []string{"guard", fmt.Sprintf("customer %d  held: %s", h.Subscriber, h.Text())})
	}
	for _, pr := range x.Problems {
		rows = append(rows, []string{"problem", fmt.Sprintf("%s: %s", pr.Kind, pr.Detail)})
	}
	if x.Would != nil {
		rows = append(rows, []string{"now", fmt.Sprintf("a DISCOVER would end in %s: %s", x.Would.Outcome, x.Would.Text)})
		rows = append(rows, []string{"trust", trustText(x.Would)})
		rows = append(rows, ruleRows(x.Would)...)
		if w := x.Would; !w.Rival.IsZero() {
			rows = append(rows, []string{"", fmt.Sprintf("%s has %s; %s may have it from %s on", w.Rival, w.YourIP, w.MAC, w.Until.Local().Format(time.DateTime))})
		}
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
		text := fmt.Sprintf("%s  %s %s  %s", e.Time.Local().Format("15:04:05.000"), e.Type, e.Outcome, orDash(e.IP().String(), !e.IP().IsValid()))
		if !e.Rival.IsZero() {
			text += fmt.Sprintf("  %s has it, %s wants it", e.Rival, e.MAC)
		}
		rows = append(rows, []string{"packet", text}, []string{"", "  " + wayText(e)})
	}
	return cli.Table(w, rows)
}

// trustText says who would bring the client's packet, and who vouches for what it says about where the client is.
func trustText(w *console.WouldView) string {
	s := "direct"
	if w.Relay.IsValid() {
		s = fmt.Sprintf("relay %s from %s", w.Relay, w.Relay)
		if w.Source.IsValid() {
			s = fmt.Sprintf("relay %s from %s", w.Relay, w.Source)
		}
	}
	if w.Interface != "" {
		s += " on " + w.Interface
	}
	s += ", vouched for by " + voucherText(w.VouchedBy)
	if w.Untrusted {
		s += "; option 82 is not trusted " + console.Untrusted(w.Relay, w.Interface)
	}
	return s
}

// ruleRows say which row of the table would decide, and on what.
func ruleRows(w *console.WouldView) [][]string {
	var rows [][]string
	if w.Rule != "" {
		rows = append(rows, []string{"rule", strings.TrimSuffix(w.Rule+": "+w.RuleText, ": ")}) // an older agent sends no sentence
	}
	if !w.Since.IsZero() {
		rows = append(rows, []string{"record", fmt.Sprintf("%s has %s since %s", w.Holder, w.YourIP, w.Since.Local().Format(time.DateTime))})
	}
	if w.Stray != "" {
		rows = append(rows, []string{"by MAC", w.Stray + ": " + w.StrayText})
	}
	if n := w.Networks; !n.IsZero() {
		rows = append(rows, []string{"networks", n.String()})
	}
	return rows
}

// wayText says by which way a packet came and how its client was found.
func wayText(e console.EventView) string {
	var s []string
	if e.Source.IsValid() {
		s = append(s, "from "+e.Source.String())
	}
	if e.Relay.IsValid() {
		s = append(s, "relay "+e.Relay.String())
	}
	if e.Interface != "" {
		s = append(s, "on "+e.Interface)
	}
	s = append(s, "vouched for by "+voucherText(e.VouchedBy))
	if e.Lost == outcome.Option82Untrusted.String() {
		s = append(s, "option 82 is not trusted "+console.Untrusted(e.Relay, e.Interface))
	}
	if e.MatchedBy != "" {
		s = append(s, "found by "+e.MatchedBy)
	}
	if e.Stray != "" {
		s = append(s, "given by MAC: "+e.Stray)
	}
	if !e.Networks.IsZero() {
		s = append(s, e.Networks.String())
	}
	if !e.Since.IsZero() {
		s = append(s, "lease since "+e.Since.Local().Format(time.DateTime))
	}
	if e.Rule != "" {
		s = append(s, "decided by: "+e.Rule)
	}
	return strings.Join(s, ", ")
}

// voucherText names a voucher in a sentence.
func voucherText(word string) string {
	if word == "none" || word == "" {
		return "nobody"
	}
	return word
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
