package show

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/provision"
)

func newOption82(c *cli.Program) *cobra.Command {
	var giaddr, mac string
	cmd := c.SocketFlag(&cobra.Command{
		Use:   "option82 HEX",
		Short: "Decode an option 82 and say what it would match",
		Long: `option82 shows every sub-option of an option 82, reads the bytes by every profile that fits, ready ones and those of the running agent's
configuration, and asks the agent what the ERP has for each of them and what it would do with a packet that
carries them. Without an agent it decodes by the ready ones only.

HEX is the payload, with or without the leading 52 and length; blanks, colons and dashes do not matter.`,
		Example: `  usher option82 0106000400640005020800063c3332664350
  usher option82 01:06:00:04:00:64:00:05 --giaddr 198.51.100.11
  usher option82 suggest
  usher option82 profiles`,
		Args: cli.Exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			payload, err := parseOption82(args[0])
			if err != nil {
				return cli.Usage(err)
			}
			var relay netip.Addr
			if giaddr != "" {
				if relay, err = netip.ParseAddr(giaddr); err != nil || !relay.Is4() {
					return cli.Usage(fmt.Errorf("--giaddr %q: want an IPv4 address", giaddr))
				}
			}
			client, err := provision.ParseMAC(mac)
			if err != nil {
				return cli.Usage(fmt.Errorf("--mac: %w", err))
			}
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Option82View, error) {
				v, err := cl.Option82(ctx, payload, relay, client)
				var said *console.StatusError
				if err == nil || errors.As(err, &said) || ctx.Err() != nil {
					return v, err
				}
				v, rerr := console.NewOption82View(payload, relay, nil, readyProfiles())
				if rerr != nil {
					return nil, rerr
				}
				v.Note = "decoded only: " + err.Error()
				return v, nil
			}, printOption82)
		},
	})
	cmd.Flags().StringVar(&giaddr, "giaddr", "", "address of the relay that the packet would come from")
	cmd.Flags().StringVar(&mac, "mac", "", "MAC of the client that would ask; empty: some new one")
	for _, flag := range []string{"giaddr", "mac"} {
		cli.Must(cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions))
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.AddCommand(newOption82Suggest(c), newOption82Profiles(c))
	return cmd
}

// parseOption82 reads hexadecimal bytes and takes the code and length of the
// option away if they are there.
func parseOption82(s string) ([]byte, error) {
	digits := strings.NewReplacer(":", "", "-", "", ".", "", " ", "", "\t", "", "\n", "").Replace(strings.TrimSpace(s))
	digits = strings.TrimPrefix(strings.TrimPrefix(digits, "0x"), "0X")
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("option 82 %.60q: want hexadecimal bytes such as 0106000400640005: %w", s, err)
	}
	if len(b) > 2 && b[0] == 82 && int(b[1]) == len(b)-2 {
		b = b[2:]
	}
	if len(b) == 0 || len(b) > 255 {
		return nil, fmt.Errorf("option 82 of %d bytes: want 1 to 255", len(b))
	}
	return b, nil
}

func readyProfiles() []option82.Profile {
	var out []option82.Profile
	for _, e := range option82.Catalogue() {
		out = append(out, e.Profile)
	}
	return out
}

func printOption82(w io.Writer, v *console.Option82View) error {
	p := cli.NewPaint(w)
	if n := v.Now; n != nil {
		fmt.Fprintf(w, "%s\n", p.Bold(fmt.Sprintf("A DISCOVER now would end in %s: %s", n.Outcome, n.Text)))
		rows := [][]string{{"profile", orDash(n.Profile, n.Profile == "")}}
		if n.Fault != "" {
			rows = append(rows, []string{"", p.Red(n.Fault)})
		}
		rows = append(rows, []string{"circuit-id", n.Circuit}, []string{"remote-id", n.Remote})
		if n.RelaySays != "" {
			rows = append(rows, []string{"relay", n.RelaySays})
		}
		if n.Device != 0 {
			rows = append(rows, []string{"port", fmt.Sprintf("device %d port %d", n.Device, n.Port)})
		}
		if n.YourIP.IsValid() {
			rows = append(rows, []string{"address", n.YourIP.String()})
		}
		if n.Advice != "" {
			rows = append(rows, []string{"advice", n.Advice})
		}
		if err := cli.Table(w, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if v.Note != "" {
		fmt.Fprintf(w, "%s\n\n", p.Faint(v.Note))
	}
	subs := [][]string{{"SUB-OPTION", "BYTES", "SAYS"}}
	for _, s := range v.SubOptions {
		says := s.Text
		if s.Fault != "" {
			says = strings.TrimSpace(says + " " + p.Red("("+s.Fault+")"))
		}
		subs = append(subs, []string{strings.TrimSpace(fmt.Sprint(s.Code, " ", s.Name)), orDash(s.Value, s.Value == ""), says})
	}
	if err := cli.Table(w, subs); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if len(v.Readings) == 0 {
		_, err := fmt.Fprintln(w, "No ready profile reads it. Write one (docs/option82.md), or name the port by these bytes: dhcp.option82.exact.")
		return err
	}
	return cli.Table(w, append([][]string{{"PROFILE", "SURE", "READ AS", "IN THE ERP"}}, readingRows(v.Readings, v.Now != nil)...))
}

// readingRows writes readings; asked says whether the ERP's data was looked at.
func readingRows(list []line.Reading, asked bool) [][]string {
	var rows [][]string
	for _, r := range list {
		has := "-"
		switch {
		case !asked:
		case r.Result == line.Bound:
			has = fmt.Sprintf("customer %d, %s", r.Subscriber, addresses(r.Addresses))
		case r.DeviceName != "":
			has = r.Result.String() + " of " + r.DeviceName
		default:
			has = r.Result.String()
		}
		rows = append(rows, []string{r.Profile, r.Confidence, r.Text, has})
	}
	return rows
}

func addresses(list []netip.Addr) string {
	s := make([]string, len(list))
	for i, a := range list {
		s[i] = a.String()
	}
	return strings.Join(s, " ")
}

func newOption82Suggest(c *cli.Program) *cobra.Command {
	return c.SocketFlag(&cobra.Command{
		Use:   "suggest",
		Short: "List the option 82 values lately seen that led to no port",
		Long: `suggest asks the running agent for the packets it remembers whose option 82 could not be read, named an
unknown switch, or a port without an address. For each value: how often, from where, what it may mean, and
lines for the configuration. A guess is a guess: compare the port with the device's before you use it.`,
		Example: "  usher option82 suggest\n  usher option82 suggest --output json | jq -r '.unknown[].config'",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.Ask(c, cmd, func(ctx context.Context, cl *console.Client) (*console.Option82Unknowns, error) {
				return cl.UnknownOption82(ctx)
			}, printUnknown)
		},
	})
}

func printUnknown(w io.Writer, u *console.Option82Unknowns) error {
	p := cli.NewPaint(w)
	if len(u.Unknown) == 0 {
		_, err := fmt.Fprintf(w, "Every option 82 seen since %s led to a port.\n", u.WatchingSince.Local().Format(time.DateTime))
		return err
	}
	now := time.Now()
	for _, x := range u.Unknown {
		from := x.Interface
		if x.Relay.IsValid() {
			from = strings.TrimSpace("relay " + x.Relay.String() + " " + x.Interface)
		}
		macs := make([]string, len(x.MACs))
		for i, m := range x.MACs {
			macs[i] = m.String()
		}
		fmt.Fprintf(w, "%s\n", p.Bold(hex.EncodeToString(x.Option82)))
		rows := [][]string{
			{"  seen", fmt.Sprintf("%d packets, the last %s, %s", x.Packets, cli.Ago(x.Last, now), x.Outcome)},
			{"  from", from}, {"  clients", strings.Join(macs, " ")},
		}
		if x.Fault != "" {
			rows = append(rows, []string{"  now", fmt.Sprintf("profile %s: %s", x.Profile, x.Fault)})
		} else {
			rows = append(rows, []string{"  now", "profile " + x.Profile})
		}
		for _, r := range readingRows(x.Readings, true) {
			rows = append(rows, []string{"  guess", fmt.Sprintf("%s [%s]: %s (%s)", r[0], r[1], r[2], r[3])})
		}
		rows = append(rows, []string{"  advice", x.Advice})
		if err := cli.Table(w, rows); err != nil {
			return err
		}
		fmt.Fprintf(w, "\n%s\n", indent(x.Config))
	}
	if u.More > 0 {
		fmt.Fprintf(w, "and %d more values\n", u.More)
	}
	return nil
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}

func newOption82Profiles(c *cli.Program) *cobra.Command {
	return &cobra.Command{
		Use:     "profiles",
		Short:   "List the ready profiles",
		Long:    "profiles lists what \"use\" and \"default\" of dhcp.option82 may name. See docs/option82.md.",
		Example: "  usher option82 profiles\n  usher option82 profiles --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			type profile struct {
				Name       string `json:"name"`
				Confidence string `json:"confidence"`
				Vendor     string `json:"vendor"`
				Note       string `json:"note,omitempty"`
			}
			list := []profile{}
			rows := [][]string{{"PROFILE", "SURE", "FOR"}}
			for _, e := range option82.Catalogue() {
				list = append(list, profile{e.Name, string(e.Confidence), e.Vendor, e.Note})
				rows = append(rows, []string{e.Name, string(e.Confidence), e.Vendor})
			}
			if c.Output == "json" {
				return cli.PrintJSON(cmd.OutOrStdout(), list)
			}
			return cli.Table(cmd.OutOrStdout(), rows)
		},
	}
}
