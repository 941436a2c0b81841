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
)

func newExplain(c *cli.Program) *cobra.Command {
	return c.SocketFlag(&cobra.Command{
		Use:   "explain IP|MAC|CUSTOMER",
		Short: "Say why a subscriber has its address, or has none",
		Long: `explain asks the running agent for everything it knows about an address, a MAC or a customer id:
the binding, the lease, the ACL, waiting reports, defects of the ERP's data, the newest packets with
their outcome, and what the server would do with a packet now.`,
		Example: "  usher explain 192.0.2.17\n  usher explain 00:00:5e:00:53:01\n  usher explain 1001 --output json",
		Args:    cli.Exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Explanation, error) {
				return cl.Explain(ctx, args[0])
			}, printExplanation)
		},
	})
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
	for _, l := range x.Leases {
		rows = append(rows, []string{"lease", fmt.Sprintf("%s  %s  %s%s", l.IP, l.MAC, l.Standing(time.Now()), ofPool(l.Pool))})
	}
	for _, pr := range x.Problems {
		rows = append(rows, []string{"problem", fmt.Sprintf("%s: %s", pr.Kind, pr.Detail)})
	}
	if x.Would != nil {
		rows = append(rows, []string{"now", fmt.Sprintf("a DISCOVER would end in %s: %s", x.Would.Outcome, x.Would.Text)})
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
		rows = append(rows, []string{"packet", text})
	}
	return cli.Table(w, rows)
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
