package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/dhcpd/probe"
)

// probeFlags are the flags of "usher probe" as typed.
type probeFlags struct {
	iface, relayFrom, giaddr, server        string
	mac, xid, ciaddr, requested, serverID   string
	ip                                      string
	clientID, vendorClass, hostName, expect string
	circuitID, remoteID, pcap               string
	parameters                              []uint
	option82, options                       []string
	secs                                    uint16
	broadcast, all, quiet                   bool
	timeout                                 time.Duration
	retries, count                          int
}

func newProbe(c *cli.Program) *cobra.Command {
	f := &probeFlags{}
	kinds := []string{"dora"}
	for _, k := range probe.Kinds() {
		kinds = append(kinds, k.String())
	}
	cmd := &cobra.Command{
		Use:   "probe MESSAGE",
		Short: "Ask a DHCP server as a client or a relay would, and print the exchange",
		Long: `probe sends one DHCP message, or with "dora" the whole exchange from DISCOVER to ACK, and
prints what went out and what came back. MESSAGE is one of ` + strings.Join(kinds, ", ") + `.

With --interface it is a client: it broadcasts frames and needs root. With --interface, --ciaddr
and --server it renews by unicast from an address that this host has. With --relay-from it is a
relay: it sends to --server and is answered at --giaddr, by default the same address.

Text in --circuit-id, --remote-id, --client-id and --vendor-class that begins with 0x is
hexadecimal. Nothing is corrected: --option82 may be given twice, and --option may replace
the message type (--option 53=0a).

leasequery asks as an access node (RFC 4388) who has an address: by --ip, --client-id or --mac. The
server answers nodes of its dhcp.leasequery.from.

Exit code 0: answered as expected (--expect); 1: not; 2: the command line is wrong.`,
		Example: `  usher probe dora --interface eth1
  usher probe discover --interface eth1 --mac 00:00:5e:00:53:17 --circuit-id 0x000400640003
  usher probe dora --relay-from 198.51.100.1 --server 192.0.2.1 --circuit-id ge3
  usher probe renewing --ciaddr 198.51.100.17 --server 192.0.2.1 --relay-from 198.51.100.17:68
  usher probe leasequery --relay-from 198.51.100.1 --server 192.0.2.1 --ip 198.51.100.17
  usher probe discover --relay-from 198.51.100.1 --server 192.0.2.1 --option82 0106000400640003 --option82 0106000400640004 --expect silence`,
		Args:      cli.Exactly(1),
		ValidArgs: kinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.prepare(args[0])
			if err != nil {
				return cli.Usage(err)
			}
			return p.run(cmd.Context(), cmd.OutOrStdout(), c.Output == "json")
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.iface, "interface", "i", "", "interface to be a client on")
	fl.StringVar(&f.relayFrom, "relay-from", "", "address to be a relay at, with a port if it is not 67")
	fl.StringVar(&f.giaddr, "giaddr", "", "relay address in the message (default: that of --relay-from)")
	fl.StringVar(&f.server, "server", "", "the server's address, with a port if it is not 67")
	fl.StringVar(&f.mac, "mac", "", "client MAC (default: the interface's, or a random one)")
	fl.StringVar(&f.xid, "xid", "", "transaction id (default: a random one)")
	fl.Uint16Var(&f.secs, "secs", 0, "seconds that the client says it has been trying")
	fl.BoolVar(&f.broadcast, "broadcast", false, "ask for a broadcast answer")
	fl.StringVar(&f.ciaddr, "ciaddr", "", "address that the client has")
	fl.StringVar(&f.ip, "ip", "", "address that a leasequery asks about; the same as --ciaddr")
	fl.StringVar(&f.requested, "requested", "", "address that the client wants (option 50)")
	fl.StringVar(&f.serverID, "server-id", "", "server that the client has chosen (option 54)")
	fl.StringVar(&f.clientID, "client-id", "", "option 61; text is sent after a zero byte")
	fl.StringVar(&f.vendorClass, "vendor-class", "", "option 60")
	fl.StringVar(&f.hostName, "hostname", "", "option 12")
	fl.UintSliceVar(&f.parameters, "parameters", nil, "options to ask for (option 55), such as 1,3,6")
	fl.StringArrayVar(&f.options, "option", nil, "any option, CODE=HEX; may be repeated")
	fl.StringVar(&f.circuitID, "circuit-id", "", "of option 82")
	fl.StringVar(&f.remoteID, "remote-id", "", "of option 82")
	fl.StringArrayVar(&f.option82, "option82", nil, "a whole option 82 in hexadecimal; may be repeated, also beside --circuit-id")
	fl.StringVar(&f.expect, "expect", "", "offer, ack, nak, active, unassigned, unknown or silence (default: what the message hopes for)")
	fl.DurationVar(&f.timeout, "timeout", 2*time.Second, "how long to wait for an answer")
	fl.IntVar(&f.retries, "retries", 0, "how often to send again when nothing comes")
	fl.IntVar(&f.count, "count", 1, "how often to do all of it")
	fl.BoolVar(&f.all, "all", false, "wait for the answers of all servers until the time is over")
	fl.BoolVar(&f.quiet, "quiet", false, "print results only, no messages")
	fl.StringVar(&f.pcap, "pcap", "", "file to write the messages to, for tcpdump or Wireshark")
	cli.Must(cmd.RegisterFlagCompletionFunc("expect", cobra.FixedCompletions([]string{"offer", "ack", "nak", "active", "unassigned", "unknown", "silence"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// probing is a checked command line.
type probing struct {
	flags  *probeFlags
	whole  bool // dora
	query  probe.Query
	expect probe.Answer

	relay, server netip.AddrPort // invalid: not given
}

func (f *probeFlags) prepare(message string) (*probing, error) {
	p := &probing{flags: f, whole: message == "dora"}
	q := &p.query
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	addr := func(flag, s string, to *netip.Addr) {
		if s != "" {
			var err error
			*to, err = netip.ParseAddr(s)
			check(flag, err)
		}
	}
	addr("ciaddr", f.ciaddr, &q.ClientIP)
	addr("ip", f.ip, &q.ClientIP)
	addr("requested", f.requested, &q.RequestedIP)
	addr("server-id", f.serverID, &q.ServerID)
	addr("giaddr", f.giaddr, &q.GIAddr)
	var err error
	p.relay, err = addrPort(f.relayFrom, 67)
	check("relay-from", err)
	p.server, err = addrPort(f.server, 67)
	check("server", err)
	if f.xid != "" {
		n, err := strconv.ParseUint(f.xid, 0, 32)
		check("xid", err)
		q.XID = uint32(n)
	}
	if f.mac != "" {
		q.MAC, err = net.ParseMAC(f.mac)
		check("mac", err)
	}
	q.Secs, q.Broadcast = f.secs, f.broadcast
	check("parameters", f.parameterList(q))
	errs = append(errs, f.addOptions(q))
	q.Kind, p.expect = probe.Discover, probe.Acked
	if !p.whole {
		if q.Kind, err = probe.ParseKind(message); err != nil {
			return nil, err
		}
		p.expect = q.Kind.Hoped()
	}
	if f.expect != "" {
		p.expect, err = probe.ParseAnswer(f.expect)
		check("expect", err)
	}
	if f.count < 1 || f.retries < 0 || f.timeout <= 0 {
		errs = append(errs, errors.New("--count, --timeout: want more than 0; --retries: 0 or more"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, p.place()
}

func addrPort(s string, port uint16) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, port), nil
	}
	return netip.ParseAddrPort(s)
}

func (f *probeFlags) parameterList(q *probe.Query) error {
	for _, n := range f.parameters {
		if n == 0 || n > 254 {
			return fmt.Errorf("%d: want 1 to 254", n)
		}
		q.Parameters = append(q.Parameters, uint8(n))
	}
	return nil
}

func (f *probeFlags) addOptions(q *probe.Query) error {
	var errs []error
	bytes := func(flag, s string) []byte {
		b, err := probe.ParseBytes(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		return b
	}
	add := func(code uint8, value []byte) {
		if len(value) > 0 {
			q.Options = append(q.Options, probe.Option{Code: code, Value: value})
		}
	}
	add(12, []byte(f.hostName))
	add(60, bytes("vendor-class", f.vendorClass))
	id := bytes("client-id", f.clientID)
	if len(id) > 0 && !strings.HasPrefix(f.clientID, "0x") {
		id = append([]byte{0}, id...) // RFC 2132 section 9.14: not a hardware address
	}
	add(61, id)
	for _, s := range f.options {
		o, err := probe.ParseOption(s)
		errs = append(errs, err)
		q.Options = append(q.Options, o)
	}
	own, err := probe.RelayInfo(bytes("circuit-id", f.circuitID), bytes("remote-id", f.remoteID))
	errs = append(errs, err)
	if len(own) > 0 {
		q.RelayInfo = append(q.RelayInfo, own)
	}
	for _, s := range f.option82 {
		b, err := probe.ParseHex(s)
		if err != nil {
			err = fmt.Errorf("--option82: %w", err)
		}
		errs = append(errs, err)
		q.RelayInfo = append(q.RelayInfo, b)
	}
	return errors.Join(errs...)
}

// place checks from where the probe speaks, and fills what follows from that.
func (p *probing) place() error {
	f, q := p.flags, &p.query
	switch {
	case f.iface != "" && f.relayFrom != "":
		return errors.New("--interface is a client, --relay-from a relay: want one of them")
	case f.relayFrom != "" && f.server == "":
		return errors.New("--relay-from needs --server")
	case f.iface == "" && f.relayFrom == "":
		return errors.New("want --interface, or --relay-from with --server")
	case f.server != "" && f.iface != "" && f.ciaddr == "":
		return errors.New("--server with --interface asks by unicast, which needs --ciaddr")
	}
	// A client that renews from its own address is no relay.
	if f.relayFrom != "" && f.giaddr == "" && p.relay.Addr() != q.ClientIP {
		q.GIAddr = p.relay.Addr()
	}
	if len(q.MAC) == 0 && q.Kind != probe.LeaseQuery {
		q.MAC = probe.RandomMAC()
		if f.iface != "" {
			if i, err := net.InterfaceByName(f.iface); err == nil && len(i.HardwareAddr) == 6 {
				q.MAC = i.HardwareAddr
			}
		}
	}
	return q.Check()
}

func (p *probing) open() (probe.Port, error) {
	f, q := p.flags, &p.query
	switch {
	case f.relayFrom != "":
		return probe.OpenRelay(p.relay, q.GIAddr, p.server)
	case f.server != "":
		return probe.OpenUnicast(netip.AddrPortFrom(q.ClientIP, 68), f.iface, p.server)
	}
	return probe.OpenLink(f.iface, q.MAC)
}

func (p *probing) run(ctx context.Context, out io.Writer, asJSON bool) error {
	port, err := p.open()
	if err != nil {
		return err
	}
	defer port.Close()
	f := p.flags
	client := probe.Client{Port: port, Timeout: f.timeout, Retries: f.retries, All: f.all}
	report := probeReport{Expected: p.expect, AsExpected: true}
	var packets []probe.Packet
	for range f.count {
		steps, err := p.once(ctx, &client)
		if err != nil {
			return err
		}
		for i := range steps {
			packets = append(packets, steps[i].Packets()...)
		}
		r := p.report(steps)
		report.Runs = append(report.Runs, r)
		report.AsExpected = report.AsExpected && r.AsExpected
		if !asJSON {
			p.print(out, steps, &r)
		}
	}
	if f.pcap != "" {
		if err := writePcap(f.pcap, packets); err != nil {
			return err
		}
	}
	if asJSON {
		if err := cli.PrintJSON(out, report); err != nil {
			return err
		}
	}
	if !report.AsExpected {
		return cli.ErrSilent
	}
	return nil
}

func (p *probing) once(ctx context.Context, c *probe.Client) ([]probe.Step, error) {
	if p.whole {
		return c.Exchange(ctx, p.query)
	}
	s, err := c.Ask(ctx, p.query)
	return []probe.Step{s}, err
}

func writePcap(path string, packets []probe.Packet) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(probe.WritePcap(file, packets), file.Close())
}

// probeReport is the JSON of "usher probe".
type probeReport struct {
	Expected   probe.Answer `json:"expected"`
	AsExpected bool         `json:"as_expected"` // all runs
	Runs       []probeRun   `json:"runs"`
}

type probeRun struct {
	Answer     probe.Answer  `json:"answer"` // of the last step
	AsExpected bool          `json:"as_expected"`
	Address    netip.Addr    `json:"address,omitzero"`
	ServerID   netip.Addr    `json:"server_id,omitzero"`
	Steps      []probeStep   `json:"steps"`
	Packets    []probePacket `json:"packets"`
}

type probeStep struct {
	Message     string       `json:"message"`
	Answer      probe.Answer `json:"answer"`
	Sent        int          `json:"sent"`
	Received    int          `json:"received"`
	TookSeconds float64      `json:"took_seconds,omitempty"`
}

type probePacket struct {
	Time    time.Time      `json:"time"`
	Sent    bool           `json:"sent"`
	From    netip.AddrPort `json:"from"`
	To      netip.AddrPort `json:"to"`
	Type    string         `json:"type"`
	Options []probeOption  `json:"options"`
	Message string         `json:"message"` // all of it, hexadecimal
}

type probeOption struct {
	Code  uint8  `json:"code"`
	Text  string `json:"text"`
	Value string `json:"value"` // hexadecimal
}

func (p *probing) report(steps []probe.Step) probeRun {
	last := &steps[len(steps)-1]
	r := probeRun{Answer: last.Answer, AsExpected: last.Answer == p.expect, Address: last.Address(), ServerID: last.ServerID()}
	for i := range steps {
		s := &steps[i]
		r.Steps = append(r.Steps, probeStep{s.Kind.String(), s.Answer, len(s.Sent), len(s.Got), s.Took.Seconds()})
		for _, k := range s.Packets() {
			v := probePacket{Time: k.Time, Sent: k.Sent, From: k.From, To: k.To, Type: k.Type(), Message: fmt.Sprintf("%x", k.Payload), Options: []probeOption{}}
			list, _ := probe.Options(k.Payload)
			for _, o := range list {
				v.Options = append(v.Options, probeOption{o.Code, o.Text(), fmt.Sprintf("%x", o.Data)})
			}
			r.Packets = append(r.Packets, v)
		}
	}
	return r
}

func (p *probing) print(out io.Writer, steps []probe.Step, r *probeRun) {
	pt := cli.NewPaint(out)
	begun := steps[0].Sent[0].Time
	for i := range steps {
		for _, k := range steps[i].Packets() {
			if p.flags.quiet {
				break
			}
			way := "received"
			if k.Sent {
				way = "sent"
			}
			fmt.Fprintf(out, "%+9.3f ms  %-8s  %s > %s  %s\n%s", k.Time.Sub(begun).Seconds()*1000, way, k.From, k.To, pt.Bold(k.Type()), k.Text("      "))
		}
	}
	for i := range steps {
		fmt.Fprintln(out, describeStep(&steps[i]))
	}
	if r.AsExpected {
		fmt.Fprintf(out, "%s: %s, as expected\n", pt.Green("ok"), r.Answer)
	} else {
		fmt.Fprintf(out, "%s: %s, expected %s\n", pt.Red("not as expected"), r.Answer, p.expect)
	}
}

func describeStep(s *probe.Step) string {
	line := fmt.Sprintf("%s: %s", s.Kind, s.Answer)
	if a := s.Address(); a.IsValid() {
		line += " of " + a.String()
	}
	if id := s.ServerID(); id.IsValid() {
		line += " from " + id.String()
	}
	if s.Answer != probe.Silence {
		line += fmt.Sprintf(" after %.3f ms", s.Took.Seconds()*1000)
	}
	if n := len(s.Sent); n > 1 {
		line += fmt.Sprintf(", sent %d times", n)
	}
	if s.Reply != nil {
		if m := s.Reply.Message(); m != "" {
			line += fmt.Sprintf(", %q", m)
		}
		if t := s.Reply.IPAddressLeaseTime(0); t > 0 {
			line += fmt.Sprintf(", lease %s", t)
		}
		if s.Answer == probe.Active {
			line += fmt.Sprintf(", client %s", s.Reply.ClientHWAddr)
		}
	}
	return line
}
