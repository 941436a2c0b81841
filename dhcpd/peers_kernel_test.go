package dhcpd

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/provision/outbox"
)

// The networks of these tests: customers behind relays are in 198.51.100.0/24, those on the
// router's own interfaces in 192.0.2.0/24; the provider's own machines are in 203.0.113.0/24.
var (
	coreIP    = ip("203.0.113.5") // the router, towards the relays
	uplinkIP  = ip("203.0.113.11")
	gatewayIP = ip("198.51.100.1")  // the relay, towards the customers: giaddr
	nodeIP    = ip("203.0.113.194") // an access node that asks for leases
	switchIP  = host(9)             // a switch in the customers' own network
	secondIP  = ip("203.0.113.129") // a second relay, towards the first one
	leftIP    = ip("198.51.100.2")  // two routers that share gatewayIP
	rightIP   = ip("198.51.100.3")

	// The customers of ports 2 and 3 behind a relay, the same ones on a wire of the
	// router's, and one who is there alone.
	homeIP, neighbourIP           = ip("198.51.100.21"), ip("198.51.100.31")
	homeDirectIP, neighbourDirect = host(21), host(31)
	homeMAC, neighbourMAC         = client(0x21), client(0x31)
	tenantIP, tenantMAC           = host(41), client(0x41)
)

// learningERP is an ERP that takes reports of MACs and knows them from then on.
type learningERP struct {
	snap atomic.Pointer[provision.Snapshot]

	mu     sync.Mutex // guards what follows
	in     provision.Input
	writes []provision.MACReport // IP, MAC and time
}

func newERP(in provision.Input) *learningERP {
	e := &learningERP{in: in}
	snap, _ := provision.Build(in)
	e.snap.Store(snap)
	return e
}

// SetMAC implements outbox.Sender.
func (e *learningERP) SetMAC(_ context.Context, ip netip.Addr, mac provision.MAC) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.writes = append(e.writes, provision.MACReport{IP: ip, MAC: mac, At: time.Now()})
	e.in.Lines = slices.Clone(e.in.Lines)
	for i, l := range e.in.Lines {
		if slices.Contains(slices.Collect(l.Hosts4()), ip) {
			e.in.Lines[i].MAC = mac
		}
	}
	snap, _ := provision.Build(e.in)
	e.snap.Store(snap)
	return nil
}

// settled reports whether the ERP took the same after the report was made.
func (e *learningERP) settled(r provision.MACReport) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.writes, func(w provision.MACReport) bool {
		return w.IP == r.IP && w.MAC == r.MAC && w.At.After(r.At)
	})
}

func (e *learningERP) written() []provision.MACReport {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.writes)
}

// allEvents keeps every packet's event, those too that the event log leaves out in a flood.
type allEvents struct {
	mu   sync.Mutex // guards list
	list []Event
}

func (l *allEvents) Packet(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var c Event
	c.copyFrom(e)
	l.list = append(l.list, c)
}

func (l *allEvents) Commit(int, time.Duration, error) {}

// of returns the first event of a transaction; nil: it has not come.
func (l *allEvents) of(id dhcpv4.TransactionID) *Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.list, func(e Event) bool { return e.XID == binary.BigEndian.Uint32(id[:]) })
	if i < 0 {
		return nil
	}
	e := l.list[i]
	return &e
}

// last returns the newest event; the zero value if there is none.
func (l *allEvents) last() Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return Event{}
	}
	return l.list[len(l.list)-1]
}

// since counts the events from a time on.
func (l *allEvents) since(at time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.list {
		if !l.list[i].Time.Before(at) {
			n++
		}
	}
	return n
}

// district is a router with a running server, and what is around it.
type district struct {
	t      *testing.T
	lab    *lab.Lab
	files  string
	router *lab.Host

	// Machines that not every district has.
	access, second          *lab.Host
	home, neighbour, tenant *lab.Host
	pair                    []*lab.Host

	// From serve on.
	erp    *learningERP
	events *EventLog // what operators see
	all    allEvents
	leases *lease.Table
	box    *outbox.Outbox
	server *Server
	stop   func() error
}

func newDistrict(t *testing.T, name string) *district {
	t.Helper()
	l, err := lab.New(name, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range l.Processes() {
				t.Logf("%s: %s\n%s", p.Host, p.Command, p.Log())
			}
		}
		assert.NoError(t, l.Close())
	})
	d := &district{t: t, lab: l, files: t.TempDir()}
	d.router = d.host("router")
	return d
}

// host makes a machine, which forwards what is not for it.
func (d *district) host(name string) *lab.Host {
	d.t.Helper()
	h, err := d.lab.Host(name)
	require.NoError(d.t, err)
	require.NoError(d.t, h.Sysctl("net.ipv4.ip_forward", "1"))
	return h
}

// household makes a customer's router on a port of another host.
func (d *district) household(name string, mac provision.MAC, at *lab.Host, port string) *lab.Host {
	d.t.Helper()
	h := d.host(name)
	d.wire(h, "eth0", at, port)
	d.ip(h, "link set dev eth0 address "+mac.String())
	return h
}

func (d *district) wire(a *lab.Host, ifA string, b *lab.Host, ifB string) {
	d.t.Helper()
	require.NoError(d.t, d.lab.Wire(a, ifA, b, ifB))
}

// ip runs commands of ip(8) on a host.
func (d *district) ip(h *lab.Host, commands ...string) {
	d.t.Helper()
	for _, c := range commands {
		require.NoError(d.t, h.IP(strings.Fields(c)...))
	}
}

// start runs a program on a host and waits until its log has ready.
func (d *district) start(ready string, h *lab.Host, name string, args ...string) *lab.Process {
	d.t.Helper()
	p, err := h.Start(name, args...)
	require.NoError(d.t, err)
	d.logged(p, ready, 1)
	return p
}

// relay starts dhcrelay on a host.
func (d *district) relay(h *lab.Host, args ...string) *lab.Process {
	d.t.Helper()
	return d.start("Sending on   Socket/fallback", h, "dhcrelay", append([]string{"-4", "-d", "--no-pid"}, args...)...)
}

// logged waits until a program's log has n times the text.
func (d *district) logged(p *lab.Process, text string, n int) {
	d.t.Helper()
	d.eventually(fmt.Sprintf("%s on %s says %q", p.Name, p.Host, text), func() bool {
		select {
		case <-p.Done():
			if strings.Count(p.Log(), text) < n {
				require.Fail(d.t, "it has ended", "%s on %s has ended: %s", p.Name, p.Host, p.Log())
			}
		default:
		}
		return strings.Count(p.Log(), text) >= n
	})
}

func (d *district) eventually(what string, ok func() bool) {
	d.t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			require.Fail(d.t, "it does not come", "%s; events: %+v", what, d.seen())
		}
	}
}

// seen returns all events, newest first.
func (d *district) seen() []Event {
	if d.events == nil {
		return nil
	}
	return d.events.Find(EventFilter{})
}

// sees waits for an event.
func (d *district) sees(what string, ok func(e Event) bool) {
	d.t.Helper()
	d.eventually(what, func() bool { return slices.ContainsFunc(d.seen(), ok) })
}

// serve starts the server on the router, with what the ERP says.
func (d *district) serve(opts Options, in provision.Input) {
	d.t.Helper()
	opts.CommitTimeout = cmp.Or(opts.CommitTimeout, 10*time.Second) // what is counted does not depend on how quick this disk is
	journal := openJournal(d.t, filepath.Join(d.t.TempDir(), "state.db"))
	d.erp, d.events, d.leases = newERP(in), NewEventLog(0), journal.Table
	var err error
	d.box, err = outbox.Open(journal.store, outbox.Options{Enabled: true, Rate: 1000, Burst: 1000, Settled: d.erp.settled}, d.erp, nil, slog.New(slog.DiscardHandler))
	require.NoError(d.t, err)
	journal.Reports = d.box
	d.server, err = New(opts, Deps{
		Snapshot: d.erp.snap.Load, Leases: d.leases, Journal: journal, Observer: Observers{d.events, &d.all}, Links: watchIn(d.t, d.router.Namespace),
	})
	require.NoError(d.t, err)
	require.NoError(d.t, d.router.Do(d.server.Listen))
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan error, 2)
	go func() { done <- d.server.Run(ctx) }()
	go func() { done <- d.box.Run(ctx) }()
	d.stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-done, <-done, d.leases.Flush(), journal.store.Close())
	})
	d.t.Cleanup(func() { assert.NoError(d.t, d.stop()) })
}

// dir returns a folder for what a host's programs keep, which is the same each time.
func (d *district) dir(h *lab.Host) string {
	d.t.Helper()
	dir := filepath.Join(d.files, h.Name)
	require.NoError(d.t, os.MkdirAll(dir, 0o700))
	return dir
}

// dhclientConf makes ISC's client ask at once, and again within a second.
const dhclientConf = `request subnet-mask, routers, dhcp-lease-time, dhcp-renewal-time, dhcp-rebinding-time;
initial-interval 1;
backoff-cutoff 1;
reboot 20;
retry 1;
select-timeout 0;
`

const dhclientScript = `#!/bin/sh
case "$reason" in
PREINIT|EXPIRE|FAIL|RELEASE|STOP) ip -4 addr flush dev "$interface"; ip link set dev "$interface" up ;;
BOUND|RENEW|REBIND|REBOOT)
	ip -4 addr replace "$new_ip_address/24" dev "$interface"
	ip route replace default via "$new_routers" dev "$interface" ;;
esac
exit 0
`

// dhclient starts ISC's client at a customer's; what it remembers is kept between starts.
func (d *district) dhclient(h *lab.Host, args ...string) *lab.Process {
	d.t.Helper()
	dir := d.dir(h)
	conf, script := filepath.Join(dir, "conf"), filepath.Join(dir, "script")
	require.NoError(d.t, os.WriteFile(conf, []byte(dhclientConf), 0o600))
	require.NoError(d.t, os.WriteFile(script, []byte(dhclientScript), 0o700))
	p, err := h.Start("dhclient", append([]string{"-4", "-d", "-cf", conf, "-sf", script,
		"-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "eth0"}, args...)...)
	require.NoError(d.t, err)
	return p
}

// movesIn starts a real client and waits until it has the address, which it renews by T1 from then on.
func (d *district) movesIn(h *lab.Host, a netip.Addr) *lab.Process {
	d.t.Helper()
	p := d.dhclient(h)
	d.logged(p, "bound to "+a.String(), 1)
	return p
}

// renews waits until the client has renewed once more than until now, past any relay.
func (d *district) renews(p *lab.Process, a netip.Addr) {
	d.t.Helper()
	began := time.Now()
	d.logged(p, "bound to "+a.String(), strings.Count(p.Log(), "bound to "+a.String())+1)
	d.sees("a renewal by unicast", func(e Event) bool {
		return e.Type == wire.Request && e.Outcome == outcome.Ack && e.ClientIP == a && !e.GIAddr.IsValid() && e.Time.After(began)
	})
}

// leaves ends the client and has it release its address.
func (d *district) leaves(h *lab.Host, p *lab.Process, a netip.Addr) {
	d.t.Helper()
	p.Kill()
	r := d.dhclient(h, "-r")
	require.NoError(d.t, r.Wait(d.t.Context()), r.Log())
	d.sees("the RELEASE", func(e Event) bool { return e.Outcome == outcome.Released && e.ClientIP == a })
	d.eventually("the lease is released", func() bool {
		rec, known := d.leases.Get(a)
		return known && rec.State == lease.StateReleased
	})
}

// lives takes a real client through what it does: it gets its address, renews it and releases it.
func (d *district) lives(h *lab.Host, a netip.Addr) {
	d.t.Helper()
	p := d.movesIn(h, a)
	d.renews(p, a)
	d.leaves(h, p, a)
}

// settles ends the server and makes sure that there is one lease, that the ERP was
// told as often as it was to be, and that nothing was refused.
func (d *district) settles(a netip.Addr, mac provision.MAC, writes int) {
	d.t.Helper()
	d.eventually("the reports are delivered", func() bool { return d.box.Status(0).Depth == 0 })
	require.NoError(d.t, d.stop())
	require.Equal(d.t, 1, d.leases.Len())
	rec, known := d.leases.Get(a)
	require.True(d.t, known)
	require.Equal(d.t, mac, rec.MAC)
	told := d.erp.written()
	require.Len(d.t, told, writes)
	for _, w := range told {
		require.Equal(d.t, a, w.IP)
		require.Equal(d.t, mac, w.MAC)
	}
	for _, e := range d.seen() {
		if e.Outcome == outcome.MACElsewhere { // dhcrelay sends a copy of what is unicast past it, without option 82; the original is answered
			require.True(d.t, e.ClientIP == a && e.GIAddr.IsValid() && len(e.Option82) == 0, "%+v", e)
			continue
		}
		require.Contains(d.t, []outcome.Outcome{outcome.Offer, outcome.Ack, outcome.Released, outcome.ReleaseUnknown, outcome.LeaseActive, outcome.LeaseUnassigned}, e.Outcome, "%+v", e)
	}
}

// peersOptions serve both networks. Clients renew every two seconds. The relays are believed, and their option 82.
func peersOptions(relays ...netip.Addr) Options {
	opts := Options{Listen: netip.MustParseAddrPort("0.0.0.0:67"), CommitTimeout: 10 * time.Second, Options: v4.Options{Authoritative: true}}
	for _, a := range relays {
		opts.Relays, opts.Option82Relays = append(opts.Relays, netip.PrefixFrom(a, 32)), append(opts.Option82Relays, a.String())
	}
	opts.CheckRelaySource = line.SourceListed
	opts.SubscriberInterfaces, opts.TrustedInterfaces = []string{"cust*"}, []string{line.NoInterface}
	for _, gw := range []netip.Addr{gatewayIP, host(1)} {
		opts.Subnets = append(opts.Subnets, v4.Subnet{
			Prefix: netip.PrefixFrom(gw, 24).Masked(), Gateway: gw, LeaseTime: 10 * time.Minute, RenewTime: 2 * time.Second, RebindTime: 9 * time.Minute,
		})
	}
	return opts
}

// erpOf is what the ERP says of a switch with the address, of the customers on its ports 2
// and 3, and of a tenant elsewhere.
func erpOf(sw, port2, port3 netip.Addr) provision.Input {
	return provision.Input{
		Devices: []provision.Device{{ID: 1, Name: "access", MAC: switch1, IP: sw}},
		Lines: []provision.Line{
			{Subscriber: 2, Addresses: provision.Hosts4(port2), Device: 1, Port: 2, PortName: "port2"},
			{Subscriber: 3, Addresses: provision.Hosts4(port3), Device: 1, Port: 3, PortName: "port3"},
			{Subscriber: 4, Addresses: provision.Hosts4(tenantIP), MAC: tenantMAC},
		},
	}
}

// newRelayed makes a district whose switch is the customers' gateway and relays for
// them; one customer is on a wire of the router's own.
//
//	home      eth0 - port2 +--------+        core0 +--------+
//	                       | access | uplink - ... | router | cust0 - eth0 tenant
//	neighbour eth0 - port3 +--------+              +--------+
func newRelayed(t *testing.T, name string) *district {
	t.Helper()
	d := newDistrict(t, name)
	d.access = d.host("access")
	d.home = d.household("home", homeMAC, d.access, "port2")
	d.neighbour = d.household("neighbour", neighbourMAC, d.access, "port3")
	d.ip(d.access, "addr add 198.51.100.1/24 dev port2", "addr add 198.51.100.1/32 dev port3", "route add 198.51.100.31/32 dev port3")
	d.tenant = d.household("tenant", tenantMAC, d.router, "cust0")
	d.ip(d.router, "addr add 192.0.2.1/24 dev cust0")
	return d
}

// uplink joins the switch to the router without anything between them.
func (d *district) uplink() {
	d.t.Helper()
	d.wire(d.access, "uplink", d.router, "core0")
	d.ip(d.access, "addr add 203.0.113.11/24 dev uplink", "route add default via 203.0.113.5")
	d.ip(d.router, "addr add 203.0.113.5/24 dev core0", "route add 198.51.100.0/24 via 203.0.113.11")
}

// relayOnPorts starts the relay of a switch: circuit-id is the name of the port.
func (d *district) relayOnPorts(uplink string, server netip.Addr) {
	d.t.Helper()
	d.relay(d.access, "-a", "-id", "port2", "-id", "port3", "-iu", uplink, server.String())
}

// circuit is the option 82 of ISC's relay.
func circuit(port string) string { return "\x01" + string(rune(len(port))) + port }

// relaysItself is a relay that sends from its address towards the router, while
// giaddr is the one towards the customers.
func relaysItself(t *testing.T, name string) (*district, Options) {
	d := newRelayed(t, name)
	d.uplink()
	return d, peersOptions(gatewayIP, uplinkIP)
}

// bridgePorts makes one interface with the gateway's address of the switch's ports.
func (d *district) bridgePorts() {
	d.t.Helper()
	d.ip(d.access, "addr flush dev port2", "addr flush dev port3", "link add br0 type bridge", "link set dev port2 master br0", "link set dev port3 master br0",
		"addr add 198.51.100.1/24 dev br0", "link set dev br0 up")
}

// dnsmasq starts the switch's relay.
func (d *district) dnsmasq() {
	d.t.Helper()
	d.start("DHCP relay from "+gatewayIP.String(), d.access, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
		"--log-facility=-", "--pid-file=", "--user=root", "--log-dhcp", "--dhcp-relay="+gatewayIP.String()+","+coreIP.String())
}

// node joins a machine to the router that asks for leases.
func (d *district) node() *lab.Host {
	d.t.Helper()
	node := d.host("node")
	d.wire(node, "eth0", d.router, "node0")
	d.ip(d.router, "addr add 203.0.113.193/30 dev node0")
	d.ip(node, "addr add 203.0.113.194/30 dev eth0")
	return node
}

// newChain puts a second relay between switch and router: giaddr is the first
// one's, the source is the second one's.
func newChain(t *testing.T, name string) *district {
	d := newRelayed(t, name)
	d.second = d.host("second")
	d.wire(d.access, "uplink", d.second, "downlink")
	d.wire(d.second, "uplink", d.router, "core0")
	d.ip(d.access, "addr add 203.0.113.131/25 dev uplink", "route add default via 203.0.113.129")
	d.ip(d.second, "addr add 203.0.113.129/25 dev downlink", "addr add 203.0.113.11/25 dev uplink",
		"route add 198.51.100.0/24 via 203.0.113.131", "route add default via 203.0.113.5")
	d.ip(d.router, "addr add 203.0.113.5/25 dev core0", "route add 198.51.100.0/24 via 203.0.113.11", "route add 203.0.113.128/25 via 203.0.113.11")
	return d
}

// relayChain starts the relays of a chain.
func (d *district) relayChain() {
	d.t.Helper()
	d.relay(d.second, "-m", "forward", "-id", "downlink", "-iu", "uplink", coreIP.String())
	d.relayOnPorts("uplink", secondIP)
}

// chainOptions serve the customers behind both. The second relay is listed with its address
// towards the first one, too: it passes on a copy of unicast packets that go by, as the first relay.
func chainOptions() Options { return peersOptions(gatewayIP, uplinkIP, secondIP) }

// newSwitched makes a district whose switch forwards frames: its customers are on the
// router's own wire.
//
//	home      eth0 - port2 +--------+        +--------+
//	                       | access | cust0 -| router |
//	neighbour eth0 - port3 +--------+        +--------+
func newSwitched(t *testing.T, name string) *district {
	t.Helper()
	d := newDistrict(t, name)
	d.access = d.host("access")
	d.home = d.household("home", homeMAC, d.access, "port2")
	d.neighbour = d.household("neighbour", neighbourMAC, d.access, "port3")
	d.wire(d.access, "uplink", d.router, "cust0")
	d.ip(d.router, "addr add 192.0.2.1/24 dev cust0")
	return d
}

// inBand gives the switch an address in its customers' network, and starts it: what
// customers broadcast to servers is for its relay only.
func (d *district) inBand() {
	d.t.Helper()
	d.wire(d.access, "cpu", d.access, "mgmt0")
	for _, name := range []string{"uplink", "cpu", "port2", "port3"} { // those are ports of the switch: mgmt0 is its one host
		require.NoError(d.t, d.access.Sysctl("net.ipv4.conf."+name+".arp_ignore", "8"))
	}
	// The relay takes giaddr from the interface that it listens on.
	d.ip(d.access, "addr add 192.0.2.9/24 dev mgmt0", "addr add 192.0.2.9/32 dev port2", "addr add 192.0.2.9/32 dev port3")
	(&accessSwitch{uplink: "uplink", trapBroadcast: true}).run(d.t, d.access, "port2", "port3", "cpu")
}

// newPair makes two routers that relay for the same wire and share the customers'
// gateway by VRRP. The router reaches the customers by the shared address, and each relay by its own.
//
//	home      eth0 - +------+ - lan0 left  core0 - +------+
//	                 | wire |                      | core | - core0 router cust0 - eth0 tenant
//	neighbour eth0 - +------+ - lan0 right core0 - +------+
func newPair(t *testing.T, name string) *district {
	t.Helper()
	d := newDistrict(t, name)
	wire, core := d.host("wire"), d.host("core")
	d.home = d.household("home", homeMAC, wire, "home")
	d.neighbour = d.household("neighbour", neighbourMAC, wire, "neighbour")
	d.tenant = d.household("tenant", tenantMAC, d.router, "cust0")
	d.wire(d.router, "core0", core, "router")
	for i, name := range []string{"left", "right"} {
		h := d.host(name)
		d.wire(h, "lan0", wire, name)
		d.wire(h, "core0", core, name)
		d.ip(h, fmt.Sprintf("addr add 198.51.100.%d/24 dev lan0", 2+i), fmt.Sprintf("addr add 203.0.113.%d/24 dev core0", 12+i), "route add default via 203.0.113.5")
		d.pair = append(d.pair, h)
	}
	for _, b := range []*lab.Host{wire, core} {
		d.ip(b, "link add br0 type bridge mcast_snooping 0", "link set dev br0 up", "link set dev left master br0", "link set dev right master br0")
	}
	d.ip(wire, "link set dev home master br0", "link set dev neighbour master br0")
	d.ip(core, "link set dev router master br0")
	d.ip(d.router, "addr add 203.0.113.5/24 dev core0", "addr add 192.0.2.1/24 dev cust0",
		"route add 198.51.100.0/24 via 203.0.113.11", "route add 198.51.100.2/32 via 203.0.113.12", "route add 198.51.100.3/32 via 203.0.113.13")
	return d
}

// relayPair starts the relays of a pair.
func (d *district) relayPair() {
	d.t.Helper()
	for _, h := range d.pair {
		d.relay(h, "-a", "-id", "lan0", "-iu", "core0", coreIP.String())
	}
}

// pairOptions serve the customers behind a pair: both of it call their wire lan0.
func pairOptions() Options {
	opts := peersOptions(leftIP, rightIP, ip("203.0.113.12"), ip("203.0.113.13"))
	opts.Option82.Exact = []line.Option82Exact{{Value: []byte(circuit("lan0")), Device: 1, Port: 2}}
	return opts
}

const keepalivedConf = `global_defs {
	router_id %[1]s
	script_user root
}
vrrp_instance wire {
	state BACKUP
	interface lan0
	virtual_router_id 51
	priority %[2]d
	advert_int 0.2
	virtual_ipaddress {
		198.51.100.1/24 dev lan0
		203.0.113.11/24 dev core0
	}
}
`

// keepalived starts VRRP on a router of the pair.
func (d *district) keepalived(h *lab.Host, priority int) *lab.Process {
	d.t.Helper()
	dir := d.dir(h)
	conf := filepath.Join(dir, "keepalived.conf")
	require.NoError(d.t, os.WriteFile(conf, fmt.Appendf(nil, keepalivedConf, h.Name, priority), 0o600))
	return d.start("Entering BACKUP STATE", h, "keepalived", "--dont-fork", "--log-console", "--log-detail", "--no-syslog", "--vrrp",
		"--use-file="+conf, "--pid="+filepath.Join(dir, "keepalived.pid"), "--vrrp_pid="+filepath.Join(dir, "vrrp.pid"))
}

// holdsGateway waits until a router of the pair has the shared address, alone.
func (d *district) holdsGateway(h *lab.Host) {
	d.t.Helper()
	d.eventually(h.Name+" has the gateway's address", func() bool {
		for _, x := range d.pair {
			out, err := x.Output(d.t.Context(), "ip", "-4", "-o", "addr", "show", "dev", "lan0")
			if err != nil || strings.Contains(out, " "+gatewayIP.String()+"/") != (x == h) {
				return false
			}
		}
		return true
	})
}

// Who stands between customers and the server, and must be answered: each with a real client
// that gets its address, renews it and releases it.
func TestKernelHonestPeers(t *testing.T) {
	labtest.Need(t, "dhclient", "dhcrelay", "dnsmasq", "keepalived")

	t.Run("a relay that inserts option 82", func(t *testing.T) {
		t.Parallel()
		d, opts := relaysItself(t, "relay")
		d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayOnPorts("uplink", coreIP)
		d.lives(d.home, homeIP)
		d.sees("the relay's packets", func(e Event) bool {
			return e.Outcome == outcome.Offer && e.GIAddr == gatewayIP && e.Interface == "core0" && e.Device == 1 && e.Port == 2 && string(e.Option82) == circuit("port2")
		})
		require.Zero(t, d.server.Senders().Mixed, "each of its packets has it")
		d.settles(homeIP, homeMAC, 1)
	})

	// It sends from giaddr and writes no option 82: the customer is found by MAC.
	t.Run("dnsmasq as the relay", func(t *testing.T) {
		t.Parallel()
		d, _ := relaysItself(t, "dnsmasq")
		d.bridgePorts() // it looks for the one interface with its address
		erp := erpOf(gatewayIP, homeIP, neighbourIP)
		erp.Lines[0].MAC = homeMAC
		opts := peersOptions(gatewayIP)
		opts.Option82Relays = []string{line.NoRelay}
		d.serve(opts, erp)
		d.dnsmasq()
		d.lives(d.home, homeIP)
		d.sees("the relay's packets", func(e Event) bool {
			return e.Outcome == outcome.Offer && e.GIAddr == gatewayIP && len(e.Option82) == 0
		})
		d.settles(homeIP, homeMAC, 0)
	})

	t.Run("a chain of two relays", func(t *testing.T) {
		t.Parallel()
		d := newChain(t, "chain")
		d.serve(chainOptions(), erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayChain()
		d.lives(d.home, homeIP)
		d.sees("the first relay's words", func(e Event) bool {
			return e.Outcome == outcome.Offer && e.GIAddr == gatewayIP && string(e.Option82) == circuit("port2")
		})
		require.Zero(t, d.server.Senders().Mixed, "what the second one copies has its own address")
		d.settles(homeIP, homeMAC, 1)
	})

	// One DISCOVER, one REQUEST, and each comes twice. When the one with the gateway's
	// address fails, renewals go through the other.
	t.Run("a pair of routers that both relay", func(t *testing.T) {
		t.Parallel()
		d := newPair(t, "pair")
		d.serve(pairOptions(), erpOf(gatewayIP, homeIP, neighbourIP))
		first := d.keepalived(d.pair[0], 200)
		d.keepalived(d.pair[1], 100)
		d.relayPair()
		d.holdsGateway(d.pair[0])
		p := d.movesIn(d.home, homeIP)
		for _, o := range []outcome.Outcome{outcome.Offer, outcome.Ack} {
			d.sees("one transaction by both relays", func(e Event) bool {
				return e.Outcome == o && e.GIAddr == leftIP && slices.ContainsFunc(d.seen(), func(x Event) bool {
					return x.Outcome == o && x.GIAddr == rightIP && x.XID == e.XID && x.YourIP == e.YourIP
				})
			})
		}
		d.renews(p, homeIP)
		require.NoError(t, first.Stop(5*time.Second))
		d.holdsGateway(d.pair[1])
		d.renews(p, homeIP)
		d.sees("a copy of the renewal by the other relay", func(e Event) bool {
			return e.Outcome == outcome.Ack && e.GIAddr == rightIP && e.ClientIP == homeIP
		})
		d.leaves(d.home, p, homeIP)
		d.settles(homeIP, homeMAC, 1)
	})

	t.Run("a switch that relays from its customers' network", func(t *testing.T) {
		t.Parallel()
		d := newSwitched(t, "inband")
		d.inBand()
		d.serve(peersOptions(switchIP), erpOf(switchIP, homeDirectIP, neighbourDirect))
		d.relayOnPorts("mgmt0", host(1))
		d.lives(d.home, homeDirectIP)
		d.sees("the switch's packets", func(e Event) bool {
			return e.Outcome == outcome.Offer && e.GIAddr == switchIP && e.Interface == "cust0" && string(e.Option82) == circuit("port2")
		})
		d.settles(homeDirectIP, homeMAC, 1)
	})

	// It may ask who has an address, and forwards nothing.
	t.Run("an access node that asks for leases", func(t *testing.T) {
		t.Parallel()
		d, opts := relaysItself(t, "node")
		node := d.node()
		opts.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(nodeIP, 32)}
		d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayOnPorts("uplink", coreIP)
		var asks *probe.UDP
		require.NoError(t, node.Do(func() (err error) {
			asks, err = probe.OpenRelay(netip.AddrPortFrom(nodeIP, 67), nodeIP, netip.MustParseAddrPort("203.0.113.193:67"))
			return err
		}))
		defer asks.Close()
		client := probe.Client{Port: asks, Timeout: 5 * time.Second}
		ask := func() probe.Step {
			step, err := client.Ask(t.Context(), probe.Query{Kind: probe.LeaseQuery, ClientIP: homeIP, GIAddr: nodeIP})
			require.NoError(t, err)
			return step
		}
		require.Equal(t, probe.Unassigned, ask().Answer)
		p := d.movesIn(d.home, homeIP)
		step := ask()
		require.Equal(t, probe.Active, step.Answer)
		require.Equal(t, homeMAC.String(), step.Reply.ClientHWAddr.String())
		require.Equal(t, circuit("port2"), string(step.Reply.Options.Get(dhcpv4.OptionRelayAgentInformation)))
		d.renews(p, homeIP)
		d.leaves(d.home, p, homeIP)
		d.settles(homeIP, homeMAC, 1)
	})

	// Its option 82 comes without a relay address, also in renewals.
	t.Run("a switch that snoops", func(t *testing.T) {
		t.Parallel()
		d := newSwitched(t, "snoop")
		(&accessSwitch{uplink: "uplink", snoop: snoopedPort}).run(t, d.access, "port2", "port3")
		opts := peersOptions()
		opts.TrustedInterfaces = []string{"cust0"}
		d.serve(opts, erpOf(netip.Addr{}, homeDirectIP, neighbourDirect))
		d.lives(d.home, homeDirectIP)
		for _, o := range []outcome.Outcome{outcome.Offer, outcome.Ack} {
			d.sees("the switch's word", func(e Event) bool {
				return e.Outcome == o && !e.GIAddr.IsValid() && e.Interface == "cust0" && e.Port == 2 && string(e.Option82) == string(port(switch1, 2))
			})
		}
		d.sees("a renewal with option 82", func(e Event) bool {
			return e.Outcome == outcome.Ack && e.ClientIP == homeDirectIP && len(e.Option82) > 0
		})
		d.settles(homeDirectIP, homeMAC, 1)
	})

	// Nobody said that its option 82 is to be believed, and no way of matching needs it: a
	// renewal is answered as if it were not there, and carries it back.
	t.Run("a switch that begins to snoop on an interface that is not trusted", func(t *testing.T) {
		t.Parallel()
		d := newSwitched(t, "unasked")
		var snoops atomic.Bool
		(&accessSwitch{uplink: "uplink", snoop: func(name string) []byte {
			if !snoops.Load() {
				return nil
			}
			return snoopedPort(name)
		}}).run(t, d.access, "port2", "port3")
		erp := erpOf(netip.Addr{}, homeDirectIP, neighbourDirect)
		erp.Lines[0].MAC = homeMAC
		d.serve(peersOptions(), erp)
		tap := d.tap(t, "cust0")
		p := d.movesIn(d.home, homeDirectIP)
		snoops.Store(true)
		d.eventually("a renewal with option 82 is answered", func() bool {
			d.renews(p, homeDirectIP)
			return slices.ContainsFunc(d.seen(), func(e Event) bool {
				return e.Outcome == outcome.Ack && e.ClientIP == homeDirectIP && string(e.Option82) == string(port(switch1, 2))
			})
		})
		require.NotEmpty(t, slices.DeleteFunc(tap.sent(t), func(p *dhcpv4.DHCPv4) bool {
			return p.MessageType() != dhcpv4.MessageTypeAck || string(p.Options.Get(dhcpv4.OptionRelayAgentInformation)) != string(port(switch1, 2))
		}), "it is echoed")
		rec, _ := d.leases.Get(homeDirectIP)
		require.Empty(t, rec.Option82, "and not believed")
		d.leaves(d.home, p, homeDirectIP)
		d.settles(homeDirectIP, homeMAC, 0)
	})
}

// A client with an address of its own asks for settings through a relay, without the broadcast flag: the answer has nothing in yiaddr
// that the relay could send it to.
func TestKernelInformThroughARelay(t *testing.T) {
	labtest.Need(t, "dhcrelay")
	d, opts := relaysItself(t, "inform")
	d.ip(d.home, "addr add 198.51.100.21/24 dev eth0")
	d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
	d.relayOnPorts("uplink", coreIP)
	var conn net.PacketConn
	require.NoError(t, d.home.Do(func() (err error) { conn, err = net.ListenPacket("udp4", ":68"); return err }))
	defer conn.Close()

	p := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithHwAddr(homeMAC[:]), dhcpv4.WithClientIP(homeIP.AsSlice()))
	require.False(t, p.IsBroadcast())
	x := impostor{at: d.home, from: from(homeIP, 68), to: everybody}
	x.send(t, p)
	d.sees("the INFORM", func(e Event) bool { return e.Outcome == outcome.InformAck && e.GIAddr == gatewayIP })

	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buf)
	require.NoError(t, err, "the client hears nothing")
	m, err := dhcpv4.FromBytes(buf[:n])
	require.NoError(t, err)
	require.Equal(t, p.TransactionID, m.TransactionID)
	require.Equal(t, dhcpv4.MessageTypeAck, m.MessageType())
	require.Equal(t, homeIP.String(), m.ClientIPAddr.String())
	require.Empty(t, m.Options.Get(dhcpv4.OptionRelayAgentInformation), "the relay took off what it added")
}

// A client that came from behind a relay to a wire of the router's own broadcasts its renewal there at T2: the answer is for that
// wire, whatever its lease says, and the lease is of there from then on.
func TestKernelRebindOnAnotherWire(t *testing.T) {
	labtest.Need(t, "dhclient", "dhcrelay")
	d, opts := relaysItself(t, "rebind")
	d.serve(opts, byMAC(homeIP, neighbourIP))
	d.relayOnPorts("uplink", coreIP)
	d.movesIn(d.home, homeIP).Kill()
	rec, _ := d.leases.Get(homeIP)
	require.True(t, rec.GIAddr.IsValid())

	d.ip(d.home, "link set dev eth0 down", "link set dev eth0 name old")
	d.wire(d.home, "eth0", d.router, "cust1")
	d.ip(d.home, "link set dev eth0 address "+homeMAC.String(), "link set dev eth0 up")
	wire := d.tap(t, "cust1")
	p := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(homeMAC[:]), dhcpv4.WithClientIP(homeIP.AsSlice()))
	(&impostor{at: d.home, from: from(homeIP, 68), to: everybody}).send(t, p)
	d.sees("the renewal", func(e Event) bool {
		return e.XID == binary.BigEndian.Uint32(p.TransactionID[:]) && e.Outcome == outcome.Ack
	})
	d.eventually("the answer is on the client's wire", func() bool {
		return slices.ContainsFunc(wire.sent(t), func(m *dhcpv4.DHCPv4) bool {
			return m.TransactionID == p.TransactionID && m.MessageType() == dhcpv4.MessageTypeAck
		})
	})
	rec, _ = d.leases.Get(homeIP)
	require.Equal(t, "cust1", rec.Interface)
	require.False(t, rec.GIAddr.IsValid())
}

// tap hears what comes and goes on an interface of the router.
type tap struct{ *probe.Tap }

func (d *district) tap(t *testing.T, name string) tap {
	t.Helper()
	var x tap
	require.NoError(t, d.router.Do(func() (err error) { x.Tap, err = probe.OpenTap(name); return err }))
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// sent returns the messages that the router has sent since the last call.
func (x tap) sent(t *testing.T) []*dhcpv4.DHCPv4 {
	t.Helper()
	var out []*dhcpv4.DHCPv4
	for { // what was sent waits in the kernel
		p, err := x.Receive(time.Now().Add(10 * time.Millisecond))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		require.NoError(t, err)
		if m, err := dhcpv4.FromBytes(p.Payload); err == nil && p.Sent {
			out = append(out, m)
		}
	}
}

// snoopedPort is the option 82 that the switch of these tests inserts.
func snoopedPort(name string) []byte {
	return port(switch1, name[len("port")]-'0')
}
