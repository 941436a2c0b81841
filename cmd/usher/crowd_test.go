package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	dhcp "github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// The networks of a crowd's guests, each with its relay address, and a pool in it.
const (
	manyPool, manyGateway = "many", "10.64.0.1" // a large pool with long leases: what was acknowledged once is there until the end
	fewPool, fewGateway   = "few", "10.66.0.1"  // a small one with short leases, for which more clients ask than it has addresses
	manyLease, fewLease   = 24 * time.Hour, time.Minute
	fewAddresses          = 30
)

// inCrowdPools reports whether an address is of the networks of a crowd's guests.
func inCrowdPools(ip netip.Addr) bool {
	return netip.MustParsePrefix("10.64.0.0/16").Contains(ip) || netip.MustParsePrefix("10.66.0.0/24").Contains(ip)
}

// commitTimeout is how long the ACK of a bound address waits for the disk: one that came sooner was on disk.
const commitTimeout = 100 * time.Millisecond

// crowdOptions are those of a world with a crowd.
func crowdOptions(customers int) miniature.Options {
	return miniature.Options{
		Homes: 1, Customers: customers, Extra: "reports: {rate: 500, burst: 100}\n",
		Subnets: "    - {prefix: 10.64.0.0/16, gateway: " + manyGateway + "}\n    - {prefix: 10.66.0.0/24, gateway: " + fewGateway + "}\n",
		DHCP: fmt.Sprintf(`  unknown_clients: guest
  limits: {client: {rate: 0, burst: 1}, relay: {rate: 1000000, burst: 1000000}}
  pools:
    - {name: %s, range: 10.64.1.0-10.64.200.255, lease_time: %s}
    - {name: %s, range: 10.66.0.100-10.66.0.%d, lease_time: %s}
`, manyPool, manyLease, fewPool, 100+fewAddresses-1, fewLease),
	}
}

// crowd is many clients behind one relay, with what each was told: it knows every ACK that a
// client saw, and finds what contradicts one.
type crowd struct {
	conn    *net.UDPConn
	rng     *rand.Rand
	clients []*crowdClient
	window  int           // clients that wait at a time
	fails   bool          // the disk does, so that nothing of a bound address is sure to be on it
	retry   time.Duration // after which a packet is sent again
	waiting []*crowdClient
	seq     uint32
	newMACs uint32

	holds  map[netip.Addr][]hold // of pools' addresses, the newest last
	facts  map[netip.Addr]*fact  // of bound addresses
	faults []string              // what cannot be
	acks   int                   // every ACK
	late   int                   // of them of bound clients, and later than commitTimeout
	waits  map[string][]time.Duration
	xids   map[uint32]netip.Addr  // ACKs of pools' addresses by transaction
	asked  map[uint32][]time.Time // when each REQUEST was sent, by transaction
	round  int                    // a bound client changes its MAC once in each
}

// hold is a lease of a pool that a client was told of.
type hold struct {
	mac      provision.MAC
	until    time.Time // at least
	released bool      // it sent a RELEASE, which may have been heard
}

// fact is whose a bound address is.
type fact struct {
	port  uint16
	sure  provision.MAC   // acknowledged and on disk before that
	maybe []provision.MAC // asked for since, or acknowledged by a disk that was slow: may be on disk
}

// crowdClient is one of a crowd.
type crowdClient struct {
	mac    provision.MAC
	giaddr netip.Addr
	info   []byte       // option 82
	bound  *relayTarget // nil: a guest, of a pool
	number int          // its place in the crowd

	ip      netip.Addr // that it was told to have
	server  netip.Addr
	changed int // the round in which it changed its MAC

	wants  dhcp.MessageType // what it waits for; 0: it does not
	what   string           // of the exchange, for the times
	asks   netip.Addr
	xid    uint32
	first  time.Time // when the packet was sent, before its repetitions
	sent   time.Time
	tries  int
	renews bool
}

const (
	crowdBits  = 13 // of a transaction id, for the client
	crowdTries = 3
)

// newCrowd makes a crowd of guests, many for the large pool and a few for the small one, and of all customers of the world. It is the relay.
func newCrowd(t *testing.T, w *world, many, few int, seed uint64) *crowd {
	t.Helper()
	for _, a := range []string{manyGateway, fewGateway} {
		require.NoError(t, w.Access.IP("addr", "add", a+"/32", "dev", "lo"))
	}
	for _, p := range []string{"10.64.0.0/16", "10.66.0.0/24"} {
		require.NoError(t, w.Router.IP("route", "add", p, "via", "10.0.0.2"))
	}
	w.configure(t, map[string]string{"relays": "[" + miniature.GatewayIP + ", 10.0.0.2, " + manyGateway + ", " + fewGateway + "]"})
	conn, err := w.Access.ListenPacket("0.0.0.0:67")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	c := &crowd{
		conn: conn.(*net.UDPConn), rng: rand.New(rand.NewPCG(seed, 7)), window: 48, retry: 400 * time.Millisecond,
		holds: map[netip.Addr][]hold{}, facts: map[netip.Addr]*fact{}, waits: map[string][]time.Duration{}, xids: map[uint32]netip.Addr{}, asked: map[uint32][]time.Time{},
	}
	require.NoError(t, c.conn.SetReadBuffer(4<<20))
	for i := range many + few {
		gateway := manyGateway
		if i >= many {
			gateway = fewGateway
		}
		info, err := probe.RelayInfo(fmt.Appendf(nil, "guest%06d", i), nil)
		require.NoError(t, err)
		c.clients = append(c.clients, &crowdClient{giaddr: netip.MustParseAddr(gateway), info: info, mac: provision.MAC{0x06, 0, 0, 0, byte(i >> 8), byte(i)}})
	}
	for _, target := range relayTargets(w.ERP) {
		info, err := probe.RelayInfo(binary.BigEndian.AppendUint16([]byte{0, 4, 0, 100}, target.port), append([]byte{0, 6}, target.remote[:]...))
		require.NoError(t, err)
		c.clients = append(c.clients, &crowdClient{giaddr: netip.MustParseAddr(miniature.GatewayIP), info: info, bound: &target})
		c.facts[target.ip] = &fact{port: target.port}
	}
	require.Less(t, len(c.clients), 1<<crowdBits)
	for i, x := range c.clients {
		x.number = i
	}
	return c
}

// run has clients ask, chosen at random, until ctx ends and nothing more comes in.
func (c *crowd) run(ctx context.Context) {
	c.round++
	c.waiting = c.waiting[:0]
	for ctx.Err() == nil {
		for tries := 0; len(c.waiting) < c.window && tries < 4*c.window; tries++ {
			if x := c.clients[c.rng.IntN(len(c.clients))]; x.wants == 0 {
				c.begin(x)
			}
		}
		c.hear(2 * time.Millisecond)
		c.again()
	}
	for c.hear(20 * time.Millisecond) {
	}
	for _, x := range c.waiting {
		x.wants = 0
	}
}

// let has these clients do one thing, and waits for all of it.
func (c *crowd) let(ctx context.Context, do func(x *crowdClient), clients ...*crowdClient) error {
	for _, x := range clients {
		do(x)
	}
	for len(c.waiting) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("%d clients wait: %w", len(c.waiting), context.Cause(ctx))
		}
		c.hear(2 * time.Millisecond)
		c.again()
	}
	return nil
}

// guests are clients of a pool, customers those with a bound address.
func (c *crowd) guests() []*crowdClient {
	return slices.DeleteFunc(slices.Clone(c.clients), func(x *crowdClient) bool { return x.bound != nil })
}

func (c *crowd) customers() []*crowdClient {
	return slices.DeleteFunc(slices.Clone(c.clients), func(x *crowdClient) bool { return x.bound == nil })
}

// begin has a client do something.
func (c *crowd) begin(x *crowdClient) {
	dice := c.rng.IntN(100)
	switch {
	case x.bound != nil && x.changed < c.round && dice < 60:
		c.swap(x)
	case !x.ip.IsValid() || dice < 15:
		c.discover(x)
	case x.bound == nil && dice < 30:
		c.release(x)
	default:
		c.renew(x)
	}
}

// swap puts another box in a customer's place.
func (c *crowd) swap(x *crowdClient) {
	x.changed = c.round
	c.newMACs++
	x.mac = provision.MAC{0x02, 1, byte(c.newMACs >> 24), byte(c.newMACs >> 16), byte(c.newMACs >> 8), byte(c.newMACs)}
	x.ip = netip.Addr{}
	c.discover(x)
}

func (c *crowd) discover(x *crowdClient) {
	if x.mac == (provision.MAC{}) {
		c.swap(x)
		return
	}
	x.wants, x.what, x.renews = dhcp.Offer, "offer", false
	c.ask(x)
}

func (c *crowd) request(x *crowdClient, ip netip.Addr) {
	x.wants, x.asks, x.what = dhcp.Ack, ip, "new guest"
	if x.bound != nil {
		x.what = "customer"
		if f := c.facts[ip]; f != nil && f.sure != x.mac {
			f.maybe = append(f.maybe, x.mac)
			x.what = "new customer"
		}
	}
	c.ask(x)
}

func (c *crowd) renew(x *crowdClient) {
	x.wants, x.asks, x.renews, x.what = dhcp.Ack, x.ip, true, "guest's renewal"
	if x.bound != nil {
		x.what = "renewal"
		if f := c.facts[x.ip]; f.sure != x.mac {
			f.maybe = append(f.maybe, x.mac)
			x.what = "new customer"
		}
	}
	c.ask(x)
}

func (c *crowd) release(x *crowdClient) {
	list := c.holds[x.ip]
	if n := len(list); n > 0 && list[n-1].mac == x.mac {
		list[n-1].released = true
	}
	c.seq++
	c.send(x, &dhcp.Query{Type: dhcp.Release, XID: c.seq << crowdBits, CIAddr: x.ip, Options: []dhcp.Option{{Code: dhcp.OptServerID, Value: x.server.AsSlice()}}})
	x.ip = netip.Addr{}
}

// ask sends what the client waits for the answer of.
func (c *crowd) ask(x *crowdClient) {
	c.seq++
	x.xid = c.seq<<crowdBits | uint32(x.number)
	x.first, x.tries = time.Now(), 0
	if !slices.Contains(c.waiting, x) { // it waits for an OFFER until now
		c.waiting = append(c.waiting, x)
	}
	c.repeat(x)
}

func (c *crowd) repeat(x *crowdClient) {
	x.tries++
	x.sent = time.Now()
	q := &dhcp.Query{Type: dhcp.Request, XID: x.xid}
	switch {
	case x.wants == dhcp.Offer:
		q.Type = dhcp.Discover
	case x.renews:
		c.asked[x.xid], q.CIAddr = append(c.asked[x.xid], x.sent), x.asks
	default:
		c.asked[x.xid] = append(c.asked[x.xid], x.sent)
		q.Options = []dhcp.Option{{Code: dhcp.OptRequestedIP, Value: x.asks.AsSlice()}, {Code: dhcp.OptServerID, Value: x.server.AsSlice()}}
	}
	c.send(x, q)
}

func (c *crowd) send(x *crowdClient, q *dhcp.Query) {
	q.MAC, q.GIAddr, q.Option82 = x.mac, x.giaddr, x.info
	_, _ = c.conn.WriteToUDPAddrPort(q.Append(nil), netip.MustParseAddrPort("10.0.0.1:67")) // refused where nobody listens
}

// again repeats what was not answered, and gives up after some tries.
func (c *crowd) again() {
	now := time.Now()
	for _, x := range c.waiting {
		switch {
		case x.wants == 0 || now.Sub(x.sent) < c.retry:
		case x.tries >= crowdTries:
			x.wants = 0
		default:
			c.repeat(x)
		}
	}
	c.rest()
}

func (c *crowd) rest() {
	c.waiting = slices.DeleteFunc(c.waiting, func(x *crowdClient) bool { return x.wants == 0 })
}

// hear takes what comes in, and reports whether anything did.
func (c *crowd) hear(patience time.Duration) bool {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	n, _, err := c.conn.ReadFromUDPAddrPort(buf)
	for err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		n, _, err = c.conn.ReadFromUDPAddrPort(buf) // told that nobody listened
	}
	if err != nil {
		return false
	}
	var p dhcp.Packet
	if p.Parse(buf[:n]) == nil && p.Op() == 2 {
		if i := int(p.XID() & (1<<crowdBits - 1)); i < len(c.clients) && c.clients[i].xid == p.XID() {
			c.answer(c.clients[i], &p, time.Now())
		}
	}
	c.rest()
	return true
}

func (c *crowd) answer(x *crowdClient, p *dhcp.Packet, now time.Time) {
	switch kind := p.Type(); {
	case kind == dhcp.Offer && x.wants == dhcp.Offer:
		c.waits["offer"] = append(c.waits["offer"], now.Sub(x.first))
		x.server = p.ServerID()
		c.request(x, p.YIAddr())
	case kind == dhcp.Nak && x.wants == dhcp.Ack:
		x.wants = 0
		if list := c.holds[x.asks]; x.renews && x.bound == nil && len(list) > 0 {
			if h := list[len(list)-1]; h.mac == x.mac && !h.released && now.Before(h.until) {
				c.fault("%s is refused to %s, who has it until %s", x.asks, x.mac, h.until)
			}
		}
		x.ip = netip.Addr{}
	case kind == dhcp.Ack && x.wants == dhcp.Ack:
		x.wants = 0
		c.acks++
		c.waits[x.what] = append(c.waits[x.what], now.Sub(x.first))
		c.acknowledged(x, p.YIAddr(), x.first.Add(time.Duration(p.LeaseTime())*time.Second), now)
	}
}

func (c *crowd) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// acknowledged notes what a client was told at now; it asked at x.first.
func (c *crowd) acknowledged(x *crowdClient, ip netip.Addr, until, now time.Time) {
	if x.bound != nil {
		f := c.facts[ip]
		switch {
		case f == nil || ip != x.bound.ip:
			c.fault("%s behind the port of %s got %s", x.mac, x.bound.ip, ip)
			return
		case now.Sub(x.first) < commitTimeout && !c.fails:
			f.sure, f.maybe = x.mac, nil
		default:
			c.late++
		}
		x.ip = ip
		return
	}
	if x.ip.IsValid() && x.ip != ip {
		if h := c.holds[x.ip][len(c.holds[x.ip])-1]; h.mac == x.mac && !h.released && x.first.Before(h.until) {
			c.fault("%s got %s and has %s until %s", x.mac, ip, x.ip, h.until)
		}
	}
	c.xids[x.xid] = ip
	x.ip = ip
	list := c.holds[ip]
	if n := len(list); n > 0 {
		last := &list[n-1]
		switch {
		case last.mac == x.mac:
			last.released = false
			if until.After(last.until) {
				last.until = until
			}
			return
		case !last.released && now.Before(last.until):
			c.fault("%s got %s, which %s has until %s", x.mac, ip, last.mac, last.until)
		}
	}
	c.holds[ip] = append(list, hold{mac: x.mac, until: until})
}

// check compares what clients were told with what the agent knows. It returns how many leases of pools and of bound
// addresses it looked at.
func (c *crowd) check(t *testing.T, w *world) (pools, bound int) {
	t.Helper()
	require.Empty(t, c.faults)
	known := map[netip.Addr]struct {
		mac   provision.Owner
		until time.Time
	}{}
	for _, name := range []string{manyPool, fewPool} {
		v, err := w.Client.Pools(t.Context(), name)
		require.NoError(t, err)
		for _, a := range v.Addresses {
			if a.State == "leased" {
				x := known[a.IP]
				x.mac, x.until = a.Holder, a.Until
				known[a.IP] = x
			}
		}
	}
	now := time.Now()
	for ip, list := range c.holds {
		h := list[len(list)-1]
		if h.released || !now.Before(h.until.Add(-time.Second)) {
			continue
		}
		have, ok := known[ip]
		require.True(t, ok, "the lease of %s, of %s until %s, is lost", ip, h.mac, h.until)
		require.Equal(t, h.mac.Owner(), have.mac, "lease of %s", ip)
		require.False(t, have.until.Before(h.until.Truncate(time.Millisecond)), "lease of %s ends %s, its client was told %s", ip, have.until, h.until)
		pools++
	}
	changed := map[netip.Addr]string{}
	for ip, f := range c.facts {
		if f.sure == (provision.MAC{}) && len(f.maybe) == 0 {
			continue
		}
		x, err := w.Client.Explain(t.Context(), ip.String())
		require.NoError(t, err)
		if len(x.Leases) == 0 {
			require.Zero(t, f.sure, "the lease of %s is lost", ip)
			continue
		}
		l := x.Leases[0]
		require.Contains(t, append(f.maybe, f.sure), l.MAC, "lease of %s", ip)
		require.EqualValues(t, f.port, l.Port, "lease of %s", ip)
		require.Equal(t, lease.StateBound, l.State)
		f.sure, f.maybe = l.MAC, nil
		changed[ip] = l.MAC.String()
		bound++
	}
	if c.fails {
		return pools, bound // what was acknowledged from memory alone is reported at the next renewal
	}
	// No client has asked since the kill: what is told now was kept.
	missing := ""
	err := miniature.Until(t.Context(), 30*time.Second, "every report reaches the ERP", func() (bool, error) {
		missing = ""
		for _, customer := range w.ERP.Customers() {
			for _, a := range customer.Addresses {
				if want, ok := changed[a.IP]; ok && a.MAC.String() != want {
					missing = fmt.Sprintf("%s is leased to %s, the ERP has %s", a.IP, want, a.MAC)
				}
			}
		}
		return missing == "", nil
	})
	require.NoError(t, err, "%s", missing)
	return pools, bound
}
