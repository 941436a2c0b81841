package dhcpd

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// What holds whatever the ERP says, whatever is configured and whatever clients
// send is checked here over random worlds. A new kind of lease, way of matching
// or policy is added to randomOptions and, where it makes an exception, to the
// rules in universe.check; a new kind of packet to universe.packet.

// universe is a server with random settings and clients that remember what
// they were granted.
type universe struct {
	t    testing.TB
	rng  *rand.Rand
	now  time.Time
	opts Options
	gen  *generation
	snap *provision.Snapshot
	h    *handler
	// beliefs are the addresses that clients think are theirs, until when.
	beliefs map[netip.Addr]map[string]belief
	// shortened is when the lease of an address was last renewed for a minute.
	shortened map[netip.Addr]time.Time

	static  bool // the ERP's data did not change since the beginning
	last    wire.Query
	from    traveller
	step    int
	swapped bool // a new router took an address of a pool over
	apart   bool // an address was given behind the relay of another network

	overrules bool // a client got an address because the ERP's operator gave it to its MAC while another had it
	spared    bool // a MAC was not reported, since the ERP's operator had written another one
}

// belief is what a client remembers of a lease.
type belief struct {
	until time.Time
	mac   provision.MAC
	id    []byte
}

func (u *universe) one(n int) bool { return u.rng.IntN(n) == 0 }

func pick[T any](u *universe, list ...T) T { return list[u.rng.IntN(len(list))] }

func newUniverse(t testing.TB, seed uint64) *universe {
	t.Helper()
	u := &universe{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: testNow, static: true,
		beliefs: map[netip.Addr]map[string]belief{}, shortened: map[netip.Addr]time.Time{}}
	u.opts = u.options()
	u.snap = u.erp()
	s, err := New(u.opts, Deps{
		Snapshot: func() *provision.Snapshot { return u.snap }, Leases: lease.New(), Journal: &journal{},
		Observer: Observers{}, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	u.gen = s.generation.Load()
	u.h = newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	return u
}

// erp makes bindings: few MACs, ports and VLANs for many rows, so that they meet.
func (u *universe) erp() *provision.Snapshot {
	in := provision.Input{
		FetchedAt: u.now, Source: pick(u, provision.SourceDirect, provision.SourceDirect, provision.SourceComposed),
		Devices: []provision.Device{{ID: 1, Name: "sw1", Model: "A", MAC: switch1, IP: ip("198.51.100.11")}, {ID: 2, Name: "sw2", Model: "B", MAC: switch2, IP: ip("198.51.100.12")}},
	}
	for i := range 12 {
		b := provision.Line{Subscriber: provision.SubscriberID(1 + u.rng.IntN(6)), Addresses: provision.Hosts4(u.address(byte(10 + i)))}
		if u.one(8) {
			continue
		}
		if !u.one(3) {
			b.MAC = client(byte(1 + u.rng.IntN(4)))
		}
		if !u.one(4) {
			b.Device, b.Port = provision.DeviceID(1+u.rng.IntN(2)), uint32(1+u.rng.IntN(2))
		}
		if u.one(5) {
			b.Port, b.PortName = 0, pick(u, "ge-0/0/1", "ge-0/0/2")
		}
		if !u.one(3) {
			b.VLAN = uint16(100 + u.rng.IntN(4))
		}
		in.Lines = append(in.Lines, b)
	}
	if in.KeepVacant = u.opts.keepsVacant(); in.KeepVacant { // customers without an address, on the same ports and with the same MACs
		for range 1 + u.rng.IntN(8) {
			b := provision.Line{Subscriber: provision.SubscriberID(4 + u.rng.IntN(6))}
			if !u.one(2) {
				b.MAC = client(byte(1 + u.rng.IntN(5)))
			}
			if !u.one(3) {
				b.Device, b.Port = provision.DeviceID(1+u.rng.IntN(2)), uint32(pick(u, 1, 2, 3, 3, 3))
			}
			if u.one(6) {
				b.Port, b.PortName = 0, pick(u, "ge-0/0/1", "ge-0/0/2")
			}
			if u.one(2) {
				b.VLAN = uint16(100 + u.rng.IntN(4))
			}
			in.Lines = append(in.Lines, b)
		}
	}
	snap, _ := provision.Build(in)
	return snap
}

// address returns that of a number in one of the two networks.
func (u *universe) address(n byte) netip.Addr {
	if u.one(8) {
		return netip.AddrFrom4([4]byte{203, 0, 113, n})
	}
	return host(n)
}

func (o *Options) keepsVacant() bool {
	return slices.ContainsFunc(o.Pools, func(p v4.Pool) bool { return p.Kind == v4.PoolSubscribers })
}

func (u *universe) options() Options {
	o := testOptions()
	o.Subnets[0].LeaseTime = pick(u, time.Minute, 10*time.Minute, time.Hour)
	o.Authoritative, o.CheckRelaySource, o.RapidCommit = u.one(2), pick(u, line.SourceUnsaid, line.SourceListed, line.SourceAny), u.one(3)
	if u.one(4) {
		o.Relays = nil
	}
	for _, k := range u.rng.Perm(int(v4.MatchOption82 | v4.MatchVLAN | v4.MatchClientID | v4.MatchMAC))[:1+u.rng.IntN(4)] {
		o.Match = append(o.Match, v4.MatchKind(1+k))
	}
	if u.one(3) {
		o.Match = nil
	}
	o.VLANInterfaces = []string{"vlan{vlan}"}
	if u.one(2) {
		o.TrustedInterfaces = []string{"core", "vlan101"}
	} else if u.one(4) {
		o.TrustedInterfaces = []string{line.NoInterface}
	}
	if u.one(3) {
		o.SubscriberInterfaces = []string{"eth*"}
	}
	o.ClientIDs = []v4.ClientID{{Text: "cpe", IP: host(12)}, {Hex: []byte{9, 9}, IP: host(200)}}
	o.ClientKey, o.MACChange, o.BindingChange = v4.ClientKey(u.rng.IntN(2)), pick(u, v4.MACAccept, v4.MACAccept, v4.MACReport, v4.MACRefuse), v4.BindingChange(u.rng.IntN(2))
	o.MaxPortMACs = pick(u, 0, 0, 1, 2)
	if u.one(2) {
		for _, e := range option82.Catalogue() {
			o.Option82.Default = append(o.Option82.Default, e.Profile)
		}
	}
	o.Unknown = v4.Unknown(u.rng.IntN(3))
	if u.one(4) {
		o.SharedNetworks = []v4.SharedNetwork{{Prefixes: []netip.Prefix{o.Subnets[0].Prefix, o.Subnets[1].Prefix}}}
	}
	if u.one(2) {
		o.Pools = []v4.Pool{{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: host(20), Last: host(23)}, LeaseTime: time.Minute}}
	}
	if u.one(2) {
		o.Pools = append(o.Pools, v4.Pool{Name: "flats", Kind: v4.PoolSubscribers, Range: v4.Range{First: host(24), Last: host(27)}, LeaseTime: pick(u, time.Minute, 10*time.Minute),
			Links: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	}
	return o
}

// reload changes pools, so that their state is made anew from the lease table.
func (u *universe) reload() {
	u.opts.Pools = slices.Clone(u.opts.Pools)
	for i := range u.opts.Pools {
		p := &u.opts.Pools[i]
		p.LeaseTime = pick(u, time.Minute, 10*time.Minute)
		if u.one(2) {
			p.Last = p.First.Next()
		} else {
			p.Last = p.First.Next().Next().Next()
		}
	}
	require.NoError(u.t, u.h.s.Reload(u.opts))
	u.gen = u.h.s.generation.Load()
}

// traveller is a packet and how it comes in.
type traveller struct {
	raw   []byte
	from  netip.AddrPort
	iface string
	off   bool // the interface is not served
}

// packet makes what a client or an attacker might send.
func (u *universe) packet() traveller {
	if d := &u.h.d; d.Reply.Type == wire.Offer && !u.one(4) { // the client takes it
		q, x := u.last, u.from
		q.Type = wire.Request
		q.Options = append(slices.DeleteFunc(slices.Clone(q.Options), func(o wire.Option) bool { return o.Code == wire.OptRequestedIP || o.Code == wire.OptServerID }),
			requested(d.YourIP), chosen(d.Reply.ServerID))
		x.raw = q.Append(nil)
		u.last, u.from = q, x
		return x
	}
	if u.h.d.Match.Vacant != nil && u.h.d.Outcome == outcome.PoolAck && len(u.last.Option82) > 0 && u.one(2) { // then a new router on the port
		q, x := u.last, u.from
		q.Type, q.MAC, q.CIAddr, q.Options = wire.Discover, client(byte(1+u.rng.IntN(5))), netip.Addr{}, nil
		x.raw = q.Append(nil)
		u.last, u.from = q, x
		return x
	}
	q := wire.Query{XID: u.rng.Uint32(), MAC: client(byte(1 + u.rng.IntN(5)))}
	q.Type = pick(u, wire.Discover, wire.Discover, wire.Request, wire.Request, wire.Request, wire.Request, wire.Release, wire.Decline, wire.Inform, wire.MessageType(10))
	addr := u.address(byte(10 + u.rng.IntN(14)))
	var known *belief
	if !u.one(3) { // rather a client that has an address
		addr, known = u.believer(addr)
	}
	if !u.one(3) {
		q.Options = append(q.Options, requested(addr))
	} else if q.Type != wire.Discover {
		q.CIAddr = addr
	}
	if u.one(8) { // some clients write there what they had before, or anything
		q.CIAddr = pick(u, addr, u.address(byte(10+u.rng.IntN(14))), ip("192.0.2.66"))
	}
	if u.one(3) {
		q.Options = append(q.Options, chosen(pick(u, serverIP, serverIP, host(250))))
	}
	if u.one(5) {
		q.Options = append(q.Options, wire.Option{Code: 80})
	}
	other := client(byte(1 + u.rng.IntN(6)))
	way := u.rng.IntN(5)
	if known != nil && !u.one(8) {
		q.MAC, way = known.mac, -1
		if len(known.id) > 0 {
			q.Options = append(q.Options, clientID(known.id...))
		}
		if u.one(2) { // it renews
			q.Type, q.CIAddr = wire.Request, addr
			q.Options = slices.DeleteFunc(q.Options, func(o wire.Option) bool { return o.Code == wire.OptRequestedIP || o.Code == wire.OptServerID })
		}
	}
	switch way {
	case 0:
		q.Options = append(q.Options, clientID([]byte("cpe")...))
	case 1:
		q.Options = append(q.Options, clientID(append([]byte{1}, other[:]...)...))
	case 2:
		q.Options = append(q.Options, clientID(9, byte(u.rng.IntN(10))))
	}
	x := traveller{iface: pick(u, "eth0", "core", "vlan100", "vlan101", "vlan102", "vlan103"), off: u.one(30)}
	if u.one(2) {
		q.GIAddr = pick(u, relayIP, relayIP, relayIP, ip("198.51.100.11"), ip("203.0.113.1"), ip("192.0.2.66"))
	}
	x.from = netip.AddrPortFrom(pick(u, q.GIAddr, q.GIAddr, q.GIAddr, relayIP, ip("192.0.2.66")), 67)
	if u.one(2) {
		n := byte(1 + u.rng.IntN(3))
		q.Option82 = pick(u, port(switch1, n), port(switch2, n), port(switch1, 1), port(switch2, 1), named("ge-0/0/1", switch2[:]...), append(port(switch1, n), 5, 4, 203, 0, 113, 1),
			append(port(switch1, n), 11, 4, 198, 51, 100, 1), []byte{1, 6, 0}, []byte{0, 2, 0xaa, 0xbb})
	}
	x.raw = q.Append(nil)
	u.last, u.from = q, x
	if u.one(20) { // a second option 82 before the first
		i := len(x.raw) - 1
		for x.raw[i] != wire.OptEnd {
			i--
		}
		x.raw = append(x.raw[:i:i], 82, 3, 1, 1, 7, 82, 2, 9, 0, wire.OptEnd)
	}
	if u.one(10) {
		x.raw[u.rng.IntN(len(x.raw))] ^= byte(1 << u.rng.IntN(8))
	}
	return x
}

// believer chooses a client that thinks it has an address, in a way that is the
// same for every run of a seed.
func (u *universe) believer(otherwise netip.Addr) (netip.Addr, *belief) {
	type one struct {
		a    netip.Addr
		name string
	}
	var all []one
	for a, who := range u.beliefs {
		for name := range who {
			all = append(all, one{a, name})
		}
	}
	if len(all) == 0 {
		return otherwise, nil
	}
	slices.SortFunc(all, func(x, y one) int { return cmp.Or(x.a.Compare(y.a), cmp.Compare(x.name, y.name)) })
	x := pick(u, all...)
	b := u.beliefs[x.a][x.name]
	return x.a, &b
}

// send takes a packet through the server and checks what came of it.
func (u *universe) send(x traveller) {
	u.step++
	h, gen := u.h, u.gen
	h.read(socket.Datagram{Data: x.raw, From: x.from, Ifindex: 3, To: serverIP})
	h.enter(u.now, gen)
	h.r.P.Read(x.raw)
	h.r.P.Ingress, h.r.Served = gen.config.Line().Ingress(x.iface), !x.off
	v4.Judge(&h.r, u.snap, gen.config)
	before := u.leases()
	h.decide(u.now, gen)
	h.describe(u.now)
	h.reply = h.reply[:0]
	if h.d.Reply.Type != 0 {
		h.reply = h.d.Reply.Append(h.reply, &h.r.P.Packet)
	}
	u.check(x, before)
	if u.one(40) { // between the decision and the record of it
		u.reload()
	}
	h.apply(u.now, gen)
	for len(h.c.queue) > 0 {
		h.c.pool.Put(<-h.c.queue)
	}
	u.checkChanges(x, before)
	u.believe()
}

// leases returns a copy of the lease table.
func (u *universe) leases() map[netip.Addr]lease.Record {
	all := map[netip.Addr]lease.Record{}
	for r := range u.h.s.deps.Leases.All() {
		all[r.IP] = r
	}
	return all
}

// key is how the server knows the client again.
func (u *universe) key() string {
	if id := u.h.r.P.ClientID(); u.opts.ClientKey == v4.ClientKeyID && len(id) > 0 {
		return fmt.Sprintf("id %x", id)
	}
	return u.h.d.MAC.String()
}

func (u *universe) check(x traveller, before map[netip.Addr]lease.Record) {
	t, d, r := u.t, &u.h.d, &u.h.r
	say := fmt.Sprintf("step %d: %s on %s: %s", u.step, r.P.Type(), x.iface, d.Outcome)
	require.NotEqual(t, "invalid", d.Outcome.String(), say)
	require.Equal(t, d.Outcome.Answered(), d.Reply.Type != 0, say)
	require.Equal(t, d.Outcome.Answered(), d.Way != wire.WayNone, say)
	if d.Reply.Type == 0 {
		return
	}
	p := &r.P
	gi := p.GIAddr()
	inRelays := func(a netip.Addr) bool {
		return slices.ContainsFunc(u.opts.Relays, func(n netip.Prefix) bool { return n.Contains(a) })
	}
	require.NoError(t, r.P.Err, say)
	require.False(t, x.off, "%s: an answer on an interface that is off", say)
	if gi.IsValid() {
		require.False(t, strings.HasPrefix(x.iface, "vlan"), "%s: an answer to a relay on the interface of a VLAN", say)
		require.False(t, len(u.opts.SubscriberInterfaces) > 0 && x.iface == "eth0", "%s: an answer to a relay on a customers' interface", say)
		for _, a := range []netip.Addr{gi, x.from.Addr()} {
			require.True(t, u.snap.ByIP(a) == nil && u.gen.config.PoolOf(a) < 0, "%s: an answer to a customer who poses as a relay", say)
		}
	}
	if gi.IsValid() && len(u.opts.Relays) > 0 {
		require.True(t, inRelays(gi), "%s: an answer to an untrusted relay", say)
		if u.opts.CheckRelaySource == line.SourceListed && x.from.Addr().IsValid() {
			require.True(t, inRelays(x.from.Addr()), "%s: an answer to %s for relay %s", say, x.from, gi)
		}
	}
	require.LessOrEqual(t, p.RelayInfoCount(), 1, "%s: which option 82 is the real one?", say)
	if p.RelayInfoCount() == 1 {
		require.NoError(t, r.P.RelayErr, say)
		if !gi.IsValid() && len(u.opts.TrustedInterfaces) > 0 && !slices.Contains(u.opts.TrustedInterfaces, x.iface) {
			require.Zero(t, d.Match.By&v4.MatchOption82, "%s: by option 82 of an untrusted interface", say)
			require.Zero(t, d.Match.Loc.Device, say)
		}
	}
	u.checkReply(say)
	switch d.Reply.Type {
	case wire.Nak:
		return
	case wire.Ack, wire.Offer:
		if d.Outcome != outcome.InformAck {
			u.checkGrant(say, before)
		}
	default:
		t.Fatalf("%s: reply of type %s", say, d.Reply.Type)
	}
}

// checkReply looks at the bytes of the answer.
func (u *universe) checkReply(say string) {
	t, r, b := u.t, &u.h.r, u.h.reply
	var p wire.Packet
	require.NoError(t, p.Parse(b), say)
	require.Equal(t, r.P.XID(), p.XID(), say)
	nak := p.Type() == wire.Nak
	if nak {
		require.Equal(t, make([]byte, 12), b[12:24], "%s: ciaddr, yiaddr and siaddr of a NAK", say)
		require.Equal(t, make([]byte, 192), b[44:236], "%s: sname and file of a NAK", say)
	}
	last := byte(0)
	for i := 240; b[i] != wire.OptEnd; i += 2 + int(b[i+1]) {
		last = b[i]
		if nak {
			require.Contains(t, []byte{wire.OptMessageType, wire.OptServerID, wire.OptMessage, wire.OptClientID, wire.OptRelayAgentInfo}, last, "%s: RFC 2131 table 3", say)
		}
	}
	u.checkWay(say)
	require.Equal(t, r.P.RelayInfoCount(), p.RelayInfoCount(), "%s: the echo of option 82", say)
	require.Equal(t, r.P.RelayInfo(), p.RelayInfo(), say)
	if r.P.RelayInfoCount() > 0 {
		require.EqualValues(t, wire.OptRelayAgentInfo, last, "%s: option 82 is the last one", say)
	}
}

// checkWay makes sure that an answer goes to the relay that asked, or onto the wire that was asked on; to an address only as an ACK of a renewal or of an INFORM
// (leasequeries are answered at their giaddr), and there to the packet's own.
func (u *universe) checkWay(say string) {
	t, d, p := u.t, &u.h.d, &u.h.r.P
	switch gi := p.GIAddr(); {
	case gi.IsValid():
		require.Equal(t, wire.WayRelay, d.Way, say)
		require.Equal(t, gi, d.To.Addr(), say)
	case d.Reply.Type == wire.Nak:
		require.Equal(t, wire.WayBroadcast, d.Way, say)
		require.False(t, d.To.IsValid(), say)
	case d.To.IsValid():
		require.Contains(t, []wire.Way{wire.WayUnicast, wire.WayFrame}, d.Way, say)
		require.Equal(t, wire.Ack, d.Reply.Type, say)
		at := p.CIAddr()
		if p.Type() == wire.Inform && !at.IsValid() {
			at = p.From.Addr()
		}
		require.True(t, p.Type() == wire.Inform || p.Type() == wire.Request && !(p.ServerID().IsValid() && p.Requested().IsValid()), say)
		require.Equal(t, at, d.To.Addr(), say)
	default:
		require.Contains(t, []wire.Way{wire.WayBroadcast, wire.WayFrame}, d.Way, say)
	}
}

// checkGrant makes sure that nobody gets what is another's.
func (u *universe) checkGrant(say string, before map[netip.Addr]lease.Record) {
	t, d, r := u.t, &u.h.d, &u.h.r
	a, me := d.YourIP, u.key()
	require.Equal(t, a, d.Reply.YIAddr, say)
	b := u.snap.ByIP(a)
	switch {
	case d.Pool > 0:
		require.Nil(t, b, "%s: a pool gives %s, which is bound", say, a)
		u.checkVacant(say, before)
	case d.Outcome == outcome.AckShortened:
		if b != nil { // who is to have it waits, and past its relay the client would not hear a NAK
			require.True(t, before[a].GIAddr.IsValid() && !r.P.GIAddr().IsValid() && !r.P.Relay.Link.IsValid(), "%s: %s is bound to somebody", say, a)
		}
		require.Equal(t, v4.ChangeRenew, d.Change, say)
		// Only who has the lease is let down gently, and once.
		rec, known := before[a]
		require.True(t, known && rec.Live(u.now) && rec.Pool == "" && rec.MAC == d.MAC && u.mine(&rec), "%s: %s is not the client's", say, a)
		require.Greater(t, rec.Expires.Sub(rec.Renewed), time.Minute, "%s: %s is shortened again", say, a)
		require.False(t, rec.Renewed.Equal(u.shortened[a]) && u.now.Sub(rec.Renewed) < time.Minute, "%s: %s is shortened again within the minute", say, a)
		u.shortened[a] = u.now
	default:
		require.Same(t, b, d.Binding.Line, "%s: %s is not the ERP's", say, a)
		require.Equal(t, a, d.Binding.IP, say)
		u.checkNetwork(say, before)
		if idMAC, ok := wire.ClientIDMAC(r.P.ClientID()); u.opts.MACChange != v4.MACAccept && !b.MAC.IsZero() && (!ok || idMAC != b.MAC) {
			rec := before[a]
			if spared := u.opts.MACChange == v4.MACReport && !d.Report && u.overruled(&rec) && (rec.MAC == d.MAC || u.mine(&rec)); !spared { // a typing error cuts nobody off
				require.Equal(t, b.MAC, d.MAC, "%s: another MAC than the ERP's", say)
			}
		}
		if rec := before[a]; u.overruled(&rec) && (rec.MAC == d.MAC || u.mine(&rec)) {
			require.False(t, d.Report, "%s: what the ERP's operator wrote is undone", say)
			u.spared = u.spared || b.MAC != d.MAC
		}
	}
	for who, other := range u.beliefs[a] {
		if who == me || !u.now.Before(other.until) || d.Pool > 0 && other.mac == d.MAC { // pools know clients by MAC
			continue
		}
		// Another client uses it. It may be taken over only by who is where it belongs
		// or is named for it, and only if the lease table knows the other one no longer or the place
		// says so, or the ERP: that its operator gave the address to this MAC since the other one has it. Never by a renewal, and of a pool
		// only by a new router on a vacant line.
		if d.Match.Vacant == nil {
			require.Zero(t, d.Pool, "%s: a pool gives %s to %s while %s has it", say, a, me, who)
		}
		rec, known := before[a]
		if known && u.mine(&rec) {
			continue // taken over before; the other one has not heard of it yet
		}
		may := u.placed()
		if d.Pool > 0 {
			may = u.onLine() || u.yields(d.Match.Vacant, &rec)
		}
		if !may && b != nil && u.overruled(&rec) {
			idMAC, _ := wire.ClientIDMAC(r.P.ClientID())
			may = b.MAC == d.MAC || b.MAC == idMAC
			u.overrules = u.overrules || may
		}
		require.True(t, !known || !rec.Live(u.now) || may, "%s: %s of %s goes to %s", say, a, who, me)
		if u.renews() {
			require.False(t, known && rec.Live(u.now), "%s: %s renews %s of %s", say, me, a, who)
		}
	}
	if u.static && u.opts.MaxPortMACs > 0 && b != nil && b.Port != 0 {
		live := map[provision.MAC]bool{d.MAC: true}
		for l := range u.snap.ByPort(b.Device, b.Port).All() {
			for ip := range l.Hosts4() {
				if rec, ok := before[ip]; ok && ip != a && rec.Live(u.now) && (!u.onLine() || u.given(&rec, l)) { // what a MAC got elsewhere keeps nobody from the port
					live[rec.MAC] = true
				}
			}
		}
		rec, mine := before[a]
		require.True(t, len(live) <= u.opts.MaxPortMACs || mine && rec.MAC == d.MAC && rec.Live(u.now), "%s: %d clients on a port", say, len(live))
	}
}

// checkNetwork makes sure that an address is given where its gateway is, unless the client is on its line and the line has none
// there.
func (u *universe) checkNetwork(say string, before map[netip.Addr]lease.Record) {
	t, d, r := u.t, &u.h.d, &u.h.r
	at, a := r.P.Relay.Link, d.YourIP
	if !at.IsValid() {
		at = r.P.GIAddr()
	}
	network := func(a netip.Addr) int {
		return slices.IndexFunc(u.opts.Subnets, func(n v4.Subnet) bool { return n.Prefix.Contains(a) })
	}
	n := network(at)
	if n < 0 || network(a) == n || len(u.opts.SharedNetworks) > 0 {
		require.True(t, d.Evidence.OtherNetwork.IsZero(), say)
		return
	}
	require.Equal(t, v4.OtherNetwork{Client: u.opts.Subnets[n].Prefix, Address: u.opts.Subnets[network(a)].Prefix}, d.Evidence.OtherNetwork, say)
	u.apart = true
	if u.onLine() {
		for ip := range d.Binding.Hosts4() {
			if ip != a && d.Match.By&v4.MatchClientID != 0 && u.listed() {
				continue // the identifier names one address, and the way finds no other
			}
			require.NotEqual(t, n, network(ip), "%s: %s is given behind %s, and the line has %s", say, a, at, ip)
		}
		return
	}
	rec, known := before[a]
	kept := known && u.mine(&rec) && (len(rec.Option82) > 0 || u.renews() && d.Match.By == 0)
	require.True(t, kept, "%s: %s is given by %s behind %s", say, a, d.Match.By, at)
}

// overruled reports whether the ERP has another MAC for the address of a lease, newer than it.
func (u *universe) overruled(rec *lease.Record) bool {
	_, yes := rec.Overruled(u.snap)
	return yes
}

// checkVacant makes sure that a pool for subscribers serves them alone, each with one address.
func (u *universe) checkVacant(say string, before map[netip.Addr]lease.Record) {
	t, d := u.t, &u.h.d
	s, a := d.Match.Vacant, d.YourIP
	kind := u.gen.pools.all[d.Pool-1].Kind
	if kind == v4.PoolGuests {
		require.Zero(t, d.Rec.Subscriber, say)
		return
	}
	require.NotNil(t, s, "%s: an address for subscribers, and nobody knows whose", say)
	require.NotNil(t, u.snap.ByOwner(s.Subscriber, s.Owner), "%s: not a vacant line of the ERP", say)
	require.False(t, d.Report, "%s: there is nothing to report", say)
	if u.opts.MACChange != v4.MACAccept && !s.MAC.IsZero() && d.Match.By != 0 {
		idMAC, ok := wire.ClientIDMAC(u.h.r.P.ClientID())
		require.True(t, s.MAC == d.MAC || ok && idMAC == s.MAC, "%s: another MAC than the ERP's", say)
	}
	rec, known := before[a]
	if known && rec.Live(u.now) {
		require.Equal(t, s.Owner, rec.Holder(), "%s: %s is another's", say, a)
		require.Equal(t, s.Subscriber, rec.Subscriber, say)
		if rec.MAC != d.MAC {
			u.swapped = true
			require.True(t, u.onLine() || u.yields(s, &rec), "%s: %s of %s goes to %s", say, a, rec.MAC, d.MAC)
			require.False(t, u.renews(), "%s: a renewal takes nothing over", say)
		}
	}
	if d.Reply.Type == wire.Ack {
		require.Equal(t, []any{s.Subscriber, s.Owner}, []any{d.Rec.Subscriber, d.Rec.Key}, say)
	}
}

// checkChanges makes sure that nobody but its client ends, shortens or gets a live lease. Who may
// have one that is another's is for checkGrant to say.
func (u *universe) checkChanges(x traveller, before map[netip.Addr]lease.Record) {
	d := &u.h.d
	for a, was := range before {
		if !was.Live(u.now) || u.mine(&was) || d.Reply.Type == wire.Ack && d.YourIP == a {
			continue
		}
		is, _ := u.h.s.deps.Leases.Get(a)
		if sameMemory(&was, &is) { // nearly always: with the race detector Equal takes long
			continue
		}
		require.Equal(u.t, was, is, "step %d: %s on %s: %s: changes a lease of %s", u.step, u.h.r.P.Type(), x.iface, d.Outcome, was.MAC)
	}
}

// sameMemory reports whether two values are the same bit by bit. Those that are not may be equal nevertheless.
func sameMemory[T any](a, b *T) bool {
	n := unsafe.Sizeof(*a)
	return string(unsafe.Slice((*byte)(unsafe.Pointer(a)), n)) == string(unsafe.Slice((*byte)(unsafe.Pointer(b)), n))
}

// mine reports whether the server takes the client that asks for that of a lease. Pools know
// clients by their MAC, whatever dhcp.client_key says.
func (u *universe) mine(rec *lease.Record) bool {
	id := u.h.r.P.ClientID()
	if u.opts.ClientKey == v4.ClientKeyID && rec.Pool == "" && len(id)+len(rec.ClientID) > 0 {
		return bytes.Equal(id, rec.ClientID)
	}
	return rec.MAC == u.h.d.MAC
}

// renews reports whether the client asks for more time for the address that it says it has.
func (u *universe) renews() bool {
	p := &u.h.r.P
	return p.Type() == wire.Request && p.CIAddr().IsValid() && !(p.ServerID().IsValid() && p.Requested().IsValid())
}

// onLine reports whether the client was found by where it is.
func (u *universe) onLine() bool { return u.h.d.Match.By&(v4.MatchOption82|v4.MatchVLAN) != 0 }

// given reports whether a lease was given where the client is, or on a line by what told it, or on the port that the ERP had then.
func (u *universe) given(rec *lease.Record, l *provision.Line) bool {
	r := &u.h.r
	if bytes.Equal(rec.Option82, r.P.Option82()) && rec.GIAddr == r.P.GIAddr() && rec.Interface == r.P.Ingress.Name {
		return true
	}
	if vlan := u.gen.config.Line().Ingress(rec.Interface).VLAN; u.matches(v4.MatchVLAN) && !rec.GIAddr.IsValid() && vlan != 0 && vlan == l.VLAN {
		_, shared := u.snap.ByVLAN(vlan)
		return !shared
	}
	if len(rec.Option82) == 0 || !u.matches(v4.MatchOption82) {
		return false
	}
	var p line.Packet
	p.Read((&wire.Query{Type: wire.Request, MAC: rec.MAC, GIAddr: rec.GIAddr, Option82: rec.Option82}).Append(nil))
	loc := u.gen.config.Line().Locate(&p, u.snap)
	for other := range loc.Lines.All() {
		if other == l {
			return true
		}
	}
	return rec.Port != 0 && loc.Device == rec.Device && loc.Port == rec.Port
}

// yields reports whether the client of a lease was not found on its line, nor by the ERP's MAC, which
// the client that asks has: the ERP changed it.
func (u *universe) yields(l *provision.Line, rec *lease.Record) bool {
	byPort := len(rec.Option82) > 0 && !bytes.Equal(rec.Option82, u.h.r.P.RelayInfo()) && u.matches(v4.MatchOption82)
	byVLAN := !rec.GIAddr.IsValid() && u.gen.config.Line().Ingress(rec.Interface).VLAN != 0 && u.matches(v4.MatchVLAN)
	mac, ok := wire.ClientIDMAC(rec.ClientID)
	return l != nil && l.MAC == u.h.d.MAC && !byPort && !byVLAN && !(ok && mac == l.MAC && u.matches(v4.MatchClientID))
}

// matches reports whether clients are found in a way, alone or with others.
func (u *universe) matches(k v4.MatchKind) bool {
	list := u.opts.Match
	if len(list) == 0 {
		list = []v4.MatchKind{v4.MatchOption82, v4.MatchMAC}
	}
	return slices.ContainsFunc(list, func(m v4.MatchKind) bool { return m&k != 0 })
}

// placed reports whether the client was found by something that outweighs a live lease.
func (u *universe) placed() bool {
	return u.onLine() || u.h.d.Match.By == v4.MatchClientID && u.listed()
}

// listed reports whether the client's identifier is one of dhcp.client_ids.
func (u *universe) listed() bool {
	id := string(u.h.r.P.ClientID())
	return id != "" && slices.ContainsFunc(u.opts.ClientIDs, func(c v4.ClientID) bool { return slices.Contains(c.Values(), id) })
}

// believe is what clients make of the answer.
func (u *universe) believe() {
	d, me := &u.h.d, u.key()
	switch {
	case d.Outcome == outcome.Released || d.Outcome == outcome.PoolReleased || d.Outcome == outcome.Declined || d.Outcome == outcome.PoolDeclined:
		delete(u.beliefs[d.YourIP], me)
	case d.Reply.Type == wire.Nak:
		for _, who := range u.beliefs {
			delete(who, me)
		}
	case d.Reply.Type == wire.Ack && d.Outcome != outcome.InformAck:
		if u.beliefs[d.YourIP] == nil {
			u.beliefs[d.YourIP] = map[string]belief{}
		}
		until := u.now.Add(time.Duration(d.Reply.LeaseTime) * time.Second)
		u.beliefs[d.YourIP][me] = belief{until, d.MAC, slices.Clone(u.h.r.P.ClientID())}
	}
}

// live lets a universe go on for a number of packets.
func (u *universe) live(packets int) {
	for range packets {
		u.now = u.now.Add(time.Duration(u.rng.IntN(40)) * time.Second)
		if u.one(25) {
			u.snap, u.static = u.erp(), false
			if u.one(2) {
				u.h.s.deps.Leases.Adopt(u.snap, u.now)
			}
		}
		if u.one(50) {
			u.reload()
		}
		u.send(u.packet())
	}
}

func TestDecisionProperties(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(long.Times(t, 800, 40_000)) {
		u := newUniverse(t, seed)
		for range 80 {
			u.live(1)
			seen[u.h.d.Outcome.String()] = true
			seen["a new router of a vacant line"] = seen["a new router of a vacant line"] || u.swapped
			seen["an address of another network"] = seen["an address of another network"] || u.apart
			seen["a new router by the ERP"] = seen["a new router by the ERP"] || u.overrules
			seen["a MAC that is not reported"] = seen["a MAC that is not reported"] || u.spared
		}
	}
	// The worlds are worth nothing if what they are about does not happen in them.
	for _, o := range []outcome.Outcome{
		outcome.Ack, outcome.Offer, outcome.AckShortened, outcome.NakWrongAddress, outcome.NakNotBound, outcome.NakOtherClient, outcome.NakOverruled, outcome.PoolOffer, outcome.PoolAck,
		outcome.RelayUntrusted, outcome.RelaySource, outcome.Option82Untrusted, outcome.Option82Double, outcome.Option82Malformed, outcome.UnknownVLAN,
		outcome.SubscriberUnclear, outcome.VLANShared, outcome.MatchDisagrees, outcome.PortFull, outcome.PortMACLimit, outcome.TakeoverDamped, outcome.MACRefused, outcome.MACReported, outcome.Released,
		outcome.WrongNetwork, outcome.NakWrongNetwork,
	} {
		require.True(t, seen[o.String()], "%s never happened", o)
	}
	for _, what := range []string{"a new router of a vacant line", "an address of another network", "a new router by the ERP", "a MAC that is not reported"} {
		require.True(t, seen[what], "%s: never", what)
	}
}

// FuzzDecideWorlds lets the fuzzer choose worlds and one packet in each.
func FuzzDecideWorlds(f *testing.F) {
	for seed := range uint64(8) {
		u := newUniverse(f, seed)
		f.Add(seed, u.packet().raw)
	}
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte) {
		u := newUniverse(t, seed)
		u.live(30)
		x := u.packet()
		if x.raw = raw; len(raw) <= 1500 {
			u.send(x)
		}
		u.live(3)
	})
}
