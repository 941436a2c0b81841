package dhcpd

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// Strangers write anything into any field, from wherever nobody vouches for what they say
// or, with a line of their own, whatever they like beside it. None of them may change what is another's.

// attempt is a stranger's packet, and who is meant.
type attempt struct {
	socket.Datagram
	at     *place   // the stranger's own line; nil: none
	plain  bool     // it comes through the relay that inserts no option 82
	victim *citizen // who is meant
	flood  []byte   // what is sent after it, floods times at once; nobody can be changed by that
	floods int
	spread bool // each time with another MAC that is nobody's
}

// attempt makes the packet of a stranger.
func (tn *town) attempt() attempt {
	r := tn.bad
	if r.IntN(8) == 0 {
		return tn.squat()
	}
	v := among(r, tn.people...)
	for range 3 { // rather one that has an address, or was just offered one
		if v.has(tn.now) || v.offered.IsValid() {
			break
		}
		v = among(r, tn.people...)
	}
	for _, c := range tn.people {
		if c.offered.IsValid() && r.IntN(2) == 0 {
			v = c
		}
	}
	own := client(among[byte](r, 0xe1, 0xe2, 0x91))
	addr := v.addr
	if v.offered.IsValid() && r.IntN(3) > 0 {
		addr = v.offered
	}
	if !addr.IsValid() || r.IntN(8) == 0 {
		addr = among(r, host(11), host(12), host(13), host(14), host(31), host(41), shared(11), shared(14), shared(21), shared(50), host(200), host(201), host(210), host(211))
	}
	a := attempt{victim: v}
	q := wire.Query{XID: r.Uint32(), MAC: v.mac}
	switch r.IntN(6) {
	case 0, 1:
		q.MAC = own
	case 2:
		if l := tn.snap.ByIP(addr); l != nil && !l.MAC.IsZero() {
			q.MAC = l.MAC
		}
	}
	q.Type = among(r, wire.Discover, wire.Discover, wire.Request, wire.Request, wire.Request, wire.Request, wire.Release, wire.Release, wire.Decline, wire.Inform, wire.LeaseQuery)
	if r.IntN(2) == 0 || q.Type == wire.Release {
		q.CIAddr = addr
	}
	if r.IntN(2) == 0 || q.Type == wire.Decline {
		q.Options = append(q.Options, requested(addr))
	}
	if r.IntN(2) == 0 {
		q.Options = append(q.Options, chosen(among(r, serverIP, serverIP, serverIP, host(250))))
	}
	if r.IntN(3) == 0 {
		q.Options = append(q.Options, wire.Option{Code: 80})
	}
	switch r.IntN(6) {
	case 0, 1, 2:
		if len(v.id) > 0 {
			q.Options = append(q.Options, clientID(v.id...))
		}
	case 3:
		q.Options = append(q.Options, clientID(append([]byte{1}, v.mac[:]...)...))
	case 4:
		q.Options = append(q.Options, clientID([]byte(among(r, "\x00cpe", "cpe", "olt", "the same for all"))...))
	}
	a.To = among(r, serverIP, netip.Addr{})
	if r.IntN(4) == 0 { // one with a line of its own
		at := among(r, tn.places...)
		a.at = &at
		a.Ifindex, q.Option82, q.GIAddr = at.index, at.opt82, at.gi
		a.From = netip.AddrPortFrom(among(r, netip.IPv4Unspecified(), addr, ip("192.0.2.66")), among[uint16](r, 68, 67, 4011))
		if at.gi.IsValid() {
			a.From = netip.AddrPortFrom(at.via, 67)
		} else if at.index == ifCore && !tn.vouched(&at) {
			a.at = nil
		}
	} else if r.IntN(4) == 0 {
		tn.plainRelay(&a, &q)
	} else {
		q.Option82 = among(r, nil, v.at.opt82, v.at.opt82, port(switch1, 1), port(switch2, 1), append(port(switch1, 2), 5, 4, 192, 0, 2, 1), []byte{1, 6, 0})
		q.GIAddr = among(r, netip.Addr{}, netip.Addr{}, v.at.gi, relayIP, relay2, bridged, addr)
		tn.from(&a, q.GIAddr, addr)
	}
	a.Data = q.Append(nil)
	if tn.opts.Limits != (Limits{}) && r.IntN(8) == 0 {
		a.floods, a.spread = 250, r.IntN(2) == 0
		f := wire.Query{Type: wire.Inform, MAC: q.MAC, CIAddr: addr, GIAddr: q.GIAddr, Option82: q.Option82}
		if a.spread {
			f.Type, f.CIAddr = wire.Discover, netip.Addr{}
		}
		a.flood = f.Append(nil)
	}
	if r.IntN(20) == 0 {
		a.Data[r.IntN(len(a.Data))] ^= byte(1 << r.IntN(8))
		tn.unbelieved(&a)
	}
	return a
}

// plainRelay has a stranger's packet come through the relay that inserts no option 82 and leaves alone what its clients write, a giaddr too.
func (tn *town) plainRelay(a *attempt, q *wire.Query) {
	r, v := tn.bad, a.victim
	a.plain, a.Ifindex, a.From, a.To = true, ifUp, netip.AddrPortFrom(relay2, 67), serverIP
	q.Option82 = among(r, v.at.opt82, v.at.opt82, v.at.opt82, port(switch1, 1), port(switch2, 1), port(switch3, 1), port(switch1, 9),
		append(port(switch1, 2), 5, 4, 10, 9, 0, 1, 11, 4, 192, 0, 2, 77), []byte{1, 6, 0})
	if q.GIAddr = among(r, relay2, relay2, relay2, v.at.gi, relayIP, bridged); !q.GIAddr.IsValid() {
		q.GIAddr = relay2
	}
}

// squat is an attempt to get an address, and to get it again, by what the ERP knows a customer by, or by an identifier of the configuration, at a line that
// the ERP lacks.
func (tn *town) squat() attempt {
	r := tn.bad
	var home []*citizen // rather of who has a line
	for _, c := range tn.people {
		if l := tn.line(c); l != nil && !l.Vacant() && l.Port != 0 {
			home = append(home, c)
		}
	}
	v := among(r, append(home, tn.people[0])...)
	q := wire.Query{XID: r.Uint32(), Type: wire.Request, MAC: client(0xe1)}
	var aim netip.Addr
	if l := tn.line(v); r.IntN(3) > 0 && l != nil && !l.Vacant() {
		aim, q.MAC = l.Addresses[0].Prefix.Addr(), l.MAC
	} else {
		id := among(r, tn.opts.ClientIDs...)
		aim = id.IP
		q.Options = append(q.Options, clientID([]byte(id.Text)...))
	}
	if r.IntN(2) == 0 {
		q.CIAddr = aim
	} else {
		q.Options = append(q.Options, requested(aim), chosen(serverIP))
	}
	a := tn.lineOf(among(r, 1, 3), &q)
	a.victim, a.To, a.Data = v, serverIP, q.Append(nil)
	return a
}

// from chooses where a packet comes from, so that nobody vouches for it.
func (tn *town) from(a *attempt, gi, addr netip.Addr) {
	r := tn.bad
	a.Ifindex = among(r, ifUp, ifEth, ifEth, ifVLAN+5) // vlan105 is nobody's
	if slices.Contains(tn.opts.TrustedInterfaces, "none") && r.IntN(4) == 0 {
		a.Ifindex = ifCore
	}
	src := among(r, netip.IPv4Unspecified(), netip.IPv4Unspecified(), addr, addr, shared(66), host(66), ip("203.0.113.66"), serverIP, ethIP, relayIP, relay2, host(203), bridged)
	a.From = netip.AddrPortFrom(src, among[uint16](r, 67, 68, 4011))
	if gi.IsValid() && !tn.strange(a, src) {
		a.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 67)
	}
}

// strange reports whether nobody vouches for what src relays: it is not listed, or comes from an interface of
// subscribers. A switch that is listed as one address cannot be told from who takes its address.
func (tn *town) strange(a *attempt, src netip.Addr) bool {
	if src == bridged {
		return false
	}
	listed := slices.ContainsFunc(tn.opts.Relays, func(p netip.Prefix) bool { return p.Contains(src) })
	return !listed || a.Ifindex >= ifVLAN || a.Ifindex == ifEth && len(tn.opts.SubscriberInterfaces) > 0
}

// unbelieved makes a packet whose bytes were changed come from where nobody vouches for it.
func (tn *town) unbelieved(a *attempt) {
	a.at = nil
	if a.Ifindex == ifCore || a.Ifindex >= ifVLAN {
		a.Ifindex = ifEth
	}
	var p wire.Packet
	if p.Parse(bytes.Clone(a.Data)) != nil || p.GIAddr().IsValid() && !tn.strange(a, a.From.Addr()) {
		a.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
	}
}

// standing is what a server has for people.
type standing struct {
	leases map[netip.Addr]lease.Record
	slots  map[netip.Addr]pool.Slot
	held   map[uint64]int // by port, of all pools
	direct map[netip.Addr]access.DirectBinding
	vlan   map[netip.Addr]access.VLANBinding
}

// standing copies the state of the loud server.
func (tn *town) standing() standing {
	s := tn.loud.h.s
	st := standing{
		leases: map[netip.Addr]lease.Record{}, slots: map[netip.Addr]pool.Slot{}, held: map[uint64]int{},
		direct: map[netip.Addr]access.DirectBinding{}, vlan: map[netip.Addr]access.VLANBinding{},
	}
	for rec := range s.deps.Leases.All() {
		st.leases[rec.IP] = rec
	}
	gen := s.generation.Load()
	gen.pools.adopt(func() *provision.Snapshot { return tn.snap }, s.deps.Leases, tn.now)
	for i := range gen.pools.all {
		p := &gen.pools.all[i]
		for a := p.First; !p.Last.Less(a); a = a.Next() {
			st.slots[a] = gen.pools.Slot(i, a, tn.now)
		}
		for _, c := range tn.people {
			if k := townPort(c); k != 0 {
				st.held[k] += gen.pools.Held(i, k)
			}
		}
	}
	in := access.NewSources(access.SourceOptions{Pools: true, GuardDirect: provision.Patterns{"eth0", "core"}, GuardVLAN: provision.Patterns{"vlan*"}},
		s.deps.Leases, nil, func() []string { return nil }).Inputs()
	for g := range in.Leases {
		if g.Direct {
			st.direct[g.IP] = access.DirectBinding{IP: g.IP, MAC: g.MAC}
		} else if g.Interface != "" {
			st.vlan[g.IP] = access.VLANBinding{Interface: g.Interface, IP: g.IP}
		}
	}
	return st
}

// townPort is the port that a pool counts a citizen at; 0: none.
func townPort(c *citizen) uint64 {
	return v4.PortOfLease(&lease.Record{Option82: c.at.opt82, GIAddr: c.at.gi})
}

// disturb lets a stranger send, and looks at what came of it.
func (tn *town) disturb(a attempt) {
	tn.step++
	before := tn.standing()
	tn.say("STRANGER after %s: %s", a.victim.name, shown(a.Datagram))
	got := tn.loud.hear(tn.now, a.Datagram)
	tn.say("  %s %v", got.outcome, got.ip)
	tn.seen["stranger: "+got.outcome.String()]++
	if a.plain {
		tn.seen["through the plain relay: "+got.outcome.String()]++
	}
	after := tn.standing()
	tn.look(&a, got, &before, &after)
	if a.floods == 0 {
		return
	}
	g := a.Datagram
	for i := range a.floods {
		g.Data = a.flood
		if a.spread {
			copy(g.Data[28:], []byte{0, 0, 0x5e, 1, byte(i >> 8), byte(i)}) // chaddr
		}
		got = tn.loud.hear(tn.now, g)
		tn.checkReports(&a, &after)
	}
	tn.say("  and %d times %s, in the end %s %v", a.floods, shown(g), got.outcome, got.ip)
	tn.seen["a flood that ends "+got.outcome.String()]++
	end := tn.standing()
	tn.look(&a, got, &after, &end)
}

// look finds what came of the packet at hand.
func (tn *town) look(a *attempt, got answer, before, after *standing) {
	tn.checkReports(a, before)
	for _, c := range tn.people {
		tn.unharmed(c, a, got, before, after)
	}
}

// sharesWith reports whether a packet of a citizen has no line, and no relay but the one without option 82, that tells it from strangers of its interface.
func (tn *town) sharesWith(g socket.Datagram) bool {
	r := &tn.loud.h.r
	return (!r.P.GIAddr().IsValid() || r.P.GIAddr() == relay2) && !r.P.HasOption82() && g.Ifindex < ifVLAN
}

// reason says why nobody can tell a stranger from the client of a live lease.
type reason uint8

const (
	reasonNone    reason = iota
	reasonWire           // it is on the same wire, which tells no line
	reasonPast           // past the relay, from the address itself
	reasonMAC            // it has the MAC of a row without a port and a VLAN, which is found by it everywhere
	reasonUnknown        // it renews at a port that the ERP lacks, which is no proof of another one
)

// renews reports whether a packet is a renewal.
func renews(p *wire.Packet) bool {
	return p.Type() == wire.Request && p.CIAddr().IsValid() && !(p.ServerID().IsValid() && p.Requested().IsValid())
}

// sameKey reports whether the server knows the client of a lease by what a packet says: for a pool that is its MAC.
func (tn *town) sameKey(p *wire.Packet, rec *lease.Record) bool {
	mac, _ := p.MAC()
	if id := p.ClientID(); rec.Pool == "" && tn.opts.ClientKey == v4.ClientKeyID && (len(id) > 0 || len(rec.ClientID) > 0) {
		return bytes.Equal(id, rec.ClientID)
	}
	return mac == rec.MAC
}

// same reports why nobody can tell a stranger from a citizen who has a lease.
func (tn *town) same(c *citizen, a *attempt, rec *lease.Record) reason {
	p := &tn.loud.h.r.P.Packet
	if tn.loud.h.r.P.Err != nil {
		return reasonNone
	}
	mac, _ := p.MAC()
	alone := !p.GIAddr().IsValid() && !tn.loud.h.r.P.HasOption82() && a.Ifindex < ifVLAN
	switch {
	case tn.sameKey(p, rec) && a.plain && p.GIAddr() == relay2 && c.at.gi == relay2:
		return reasonWire
	case tn.sameKey(p, rec) && alone && a.Ifindex == c.at.index && !c.at.gi.IsValid() && !tn.vouched(&c.at):
		return reasonWire
	case tn.sameKey(p, rec) && alone && c.at.gi.IsValid() && a.From.Addr() == rec.IP && (renews(p) || p.Type() == wire.Release || p.Type() == wire.Decline):
		return reasonPast
	case mac == c.mac && tn.lineless(c) && (p.Type() == wire.Discover || p.Type() == wire.Request):
		return reasonMAC
	case mac == c.mac && tn.sameKey(p, rec) && renews(p) && a.at != nil && tn.loud.h.r.P.HasOption82() && tn.loud.h.d.Match.Loc.Lines.Len() == 0:
		return reasonUnknown
	}
	return reasonNone
}

// taken reports whether the ERP has the address of a lease for another customer by now, for another MAC that is newer, or for nobody.
func (tn *town) taken(rec *lease.Record) bool {
	l := tn.snap.ByIP(rec.IP)
	switch {
	case rec.Pool != "":
		return l != nil
	case l == nil:
		return true
	case l.Subscriber != rec.Subscriber:
		return rec.Port == 0 || l.Device != rec.Device || l.Port != rec.Port
	}
	return !l.MAC.IsZero() && l.MAC != rec.MAC && l.MAC != rec.ERP.Direct.MAC
}

// lineless reports whether the ERP has a citizen on no port and in no VLAN.
func (tn *town) lineless(c *citizen) bool {
	l := tn.line(c)
	return l != nil && l.Port == 0 && l.VLAN == 0
}

// poses reports whether the packet at hand says what the ERP knows a citizen by, where no line that the ERP
// knows says otherwise.
func (tn *town) poses(c *citizen) bool {
	r, d := &tn.loud.h.r, &tn.loud.h.d
	l := tn.line(c)
	if r.P.Err != nil || l == nil || d.Match.Loc.Lines.Len() > 0 && !tn.lineless(c) {
		return false
	}
	mac, _ := r.P.MAC()
	if mac == c.mac || mac == l.MAC || tn.opts.ClientKey == v4.ClientKeyID && len(c.id) > 0 && bytes.Equal(r.P.ClientID(), c.id) {
		return true
	}
	if !slices.ContainsFunc(tn.opts.Match, func(k v4.MatchKind) bool { return k&v4.MatchClientID != 0 }) {
		return false
	}
	id := r.P.ClientID()
	for i := range tn.opts.ClientIDs {
		n := &tn.opts.ClientIDs[i]
		if strings.TrimPrefix(string(id), "\x00") == n.Text && slices.Contains(l.Addresses, provision.Hosts4(n.IP)[0]) {
			return true
		}
	}
	in, ok := wire.ClientIDMAC(id)
	return ok && (in == c.mac || in == l.MAC)
}

// athome reports whether a lease was given where a citizen is.
func (c *citizen) athome(rec *lease.Record) bool {
	return rec.GIAddr == c.at.gi && rec.Ifindex == c.at.index
}

// unharmed makes sure that a citizen has what it had.
func (tn *town) unharmed(c *citizen, a *attempt, got answer, before, after *standing) {
	fail := func(what string, was, is any) {
		tn.harm(c, fmt.Sprintf("%s: %s by %s: %s", what, c.name, tn.loud.h.r.P.Type(), got.outcome), "%s (%v, %v at %v, line vouched for: %v): was %+v, is %+v", c.name, c.mac, c.addr, c.at, tn.vouched(&c.at), was, is)
	}
	took := got.kind == wire.Offer || got.kind == wire.Ack && got.outcome != outcome.InformAck || tn.loud.h.d.Change != v4.ChangeNone
	was := before.leases[c.addr]
	live := c.has(tn.now) && was.Live(tn.now) && was.MAC == c.mac
	if took && tn.shares(c) && tn.poses(c) {
		tn.pose(c)
	}
	if !live {
		if took && tn.poses(c) {
			tn.pose(c)
		}
		return // it is not the server's word any more, or not yet
	}
	if took && tn.lineless(c) && tn.taken(&was) { // what did not take may be no packet
		if mac, _ := tn.loud.h.r.P.MAC(); mac == tn.line(c).MAC {
			c.astray = true // by MAC alone the operator's word is for whoever has the new one
			tn.seen["taken for a customer's new router"]++
			return
		}
	}
	why := tn.same(c, a, &was)
	if (c.astray || c.guest) && !tn.vouched(&c.at) && !c.athome(&was) {
		tn.seen["a lease that a stranger took along"]++
		return
	}
	if took && (why == reasonWire || why == reasonMAC || why == reasonPast && got.outcome == outcome.AckShortened) { // which is not said twice within a minute
		tn.pose(c)
	}
	tn.seen["a live lease is looked at"]++
	is := after.leases[c.addr]
	if took && got.kind != 0 && got.ip == c.addr && why == reasonNone {
		fail("a stranger is given what a customer has", c.addr, got)
	}
	sameID := tn.opts.ClientKey == v4.ClientKeyID && was.Pool == ""
	then := was // what it may be, with more time
	switch why {
	case reasonWire, reasonPast:
		then.State = is.State
		if sameID {
			then.MAC, then.Start, then.Prior = is.MAC, is.Start, is.Prior
		}
		if !sameID && took && len(tn.loud.h.r.P.ClientID()) > 0 {
			then.ClientID = is.ClientID
		}
	case reasonMAC:
		then = is
		then.IP, then.MAC, then.Subscriber, then.Key, then.Pool = was.IP, was.MAC, was.Subscriber, was.Key, was.Pool
	case reasonUnknown:
		if renewed := is.State == lease.StateBound; renewed {
			then.State = is.State
		}
		if took && tn.shares(c) { // it counts at the port as long as that goes on
			for _, x := range tn.mates(c) {
				x.astray = true
			}
			tn.seen["a lease of a port goes on elsewhere"]++
		}
	}
	if l := tn.snap.ByIP(was.IP); why != reasonNone && got.outcome == outcome.Ack && l != nil && was.Renewed != is.Renewed { // the customer has moved
		then.Device, then.Port = l.Device, l.Port
	}
	// The ERP has taken the address, and its client is to leave. What refuses it there may as well be the client's own on a wire
	// without lines, where it must end the lease, or who has the address now would wait for what nobody uses.
	over := why == reasonWire && got.kind == wire.Nak && tn.taken(&was) && !is.Live(tn.now)
	if over {
		then.Expires = is.Expires
		tn.seen["a lease ends that the ERP took, nobody can tell by whom"]++
	}
	soonest := was.Expires
	if until := tn.now.Add(time.Duration(got.lease) * time.Second); got.kind == wire.Ack && until.Before(soonest) {
		soonest = until // leases became shorter by a reload
	}
	if why != reasonNone && is.Live(tn.now) && !is.Expires.Before(soonest) {
		then.Renewed, then.Expires = is.Renewed, is.Expires
	}
	if !equalRecord(then, is) {
		fail("lease", was, is)
	}
	if is.State != was.State {
		tn.seen["marked "+is.State.String()]++
	}
	if why != reasonNone {
		tn.seen[fmt.Sprintf("nobody can tell, %d", why)]++
	}
	if why != reasonMAC && was.MAC == is.MAC && !over {
		if before.direct[c.addr] != after.direct[c.addr] {
			fail("source guard element", before.direct[c.addr], after.direct[c.addr])
		}
		if before.vlan[c.addr] != after.vlan[c.addr] {
			fail("source guard element", before.vlan[c.addr], after.vlan[c.addr])
		}
	}
	if b, s := before.slots[c.addr], after.slots[c.addr]; b != s && !over && !(why != reasonNone && b.Owner == s.Owner && b.State == s.State && !(s.Until.Before(b.Until) && s.Until.Before(soonest))) {
		fail("slot of the pool", b, s)
	}
	if k := townPort(c); k != 0 && a.at == nil && before.held[k] != after.held[k] {
		fail("addresses of pools at its port", before.held[k], after.held[k])
	}
}

// pose notes that a stranger was taken for a citizen. One whose line somebody vouches for comes
// to its address in the next exchange; any other may have to wait until the stranger's lease ends.
func (tn *town) pose(c *citizen) {
	if c.guest {
		return
	}
	if tn.shares(c) { // the port has two addresses: each may be either's
		for _, x := range tn.mates(c) {
			x.posed = true
		}
		tn.seen["taken for one of two at a port"]++
		return
	}
	if tn.vouched(&c.at) && !tn.lineless(c) {
		c.posed = true
		tn.seen["taken for a customer who has no lease"]++
		return
	}
	c.astray = true
	tn.seen["taken for a customer of a wire without lines"]++
}

func equalRecord(a, b lease.Record) bool {
	same := bytes.Equal(a.ClientID, b.ClientID) && bytes.Equal(a.Option82, b.Option82)
	a.ClientID, b.ClientID, a.Option82, b.Option82 = nil, nil, nil, nil
	return same && (sameMemory(&a, &b) || reflect.DeepEqual(a, b)) // nearly always the first: reflection takes long with the race detector
}

// checkReports makes sure that the ERP is told nothing of a stranger but the first MAC of an address where it expects the address, the MAC on the stranger's
// own line, or the one of who has the address and was heard with that MAC on the customer's line. With client_key: client_id a lease that was given there will do:
// past the relay whoever sends its identifier from its address is its client.
func (tn *town) checkReports(a *attempt, before *standing) {
	for _, r := range tn.loud.reports {
		tn.seen["a stranger is reported"]++
		l := tn.snap.ByIP(r.IP)
		ours := a.at != nil && l != nil && tn.onLine(a.at, l)
		first := l != nil && l.MAC.IsZero() && !tn.loud.h.r.P.GIAddr().IsValid() && tn.loud.h.r.On != nil && tn.loud.h.r.On.AddrIn(netip.PrefixFrom(r.IP, 24).Masked()).IsValid()
		was := before.leases[r.IP]
		theirs := l != nil && was.Live(tn.now) && was.MAC == r.MAC && (tn.heardOn(r.MAC, l, &was) || tn.opts.ClientKey == v4.ClientKeyID && tn.given(&was, l))
		if !ours && !first && !theirs {
			tn.harm(nil, fmt.Sprintf("report by %s: %s", tn.loud.h.r.P.Type(), tn.loud.h.d.Outcome), "%v becomes the MAC of %v in the ERP", r.MAC, r.IP)
		}
	}
}

// onLine reports whether the ERP has a line at a place.
func (tn *town) onLine(p *place, l *provision.Line) bool {
	if p.index >= ifVLAN {
		return int(l.VLAN) == 100+p.index-ifVLAN
	}
	loc := tn.loud.h.d.Match.Loc
	return loc.Device == l.Device && loc.Port == l.Port && l.Port != 0
}

// given reports whether a lease was given at the port, or in the VLAN, that the ERP has for a line, or at the port that it had then.
func (tn *town) given(rec *lease.Record, l *provision.Line) bool {
	if rec.Ifindex >= ifVLAN {
		return int(l.VLAN) == 100+rec.Ifindex-ifVLAN
	}
	return slices.ContainsFunc(tn.in.Devices, func(d provision.Device) bool {
		at := func(id provision.DeviceID, n uint32) bool {
			return n != 0 && d.ID == id && bytes.HasPrefix(rec.Option82, port(d.MAC, byte(n)))
		}
		return at(l.Device, l.Port) || at(rec.Device, rec.Port)
	})
}

// heardOn reports whether a citizen with a MAC was heard on a line, or on the port that the ERP had for a lease then.
func (tn *town) heardOn(mac provision.MAC, l *provision.Line, rec *lease.Record) bool {
	return slices.ContainsFunc(tn.heard[mac], func(p place) bool {
		return tn.given(&lease.Record{Option82: p.opt82, Ifindex: p.index, Device: rec.Device, Port: rec.Port}, l)
	})
}

// checkFull makes sure that a line of which somebody vouches that a citizen is on it is full by what was given there alone.
func (tn *town) checkFull(c *citizen, is answer) {
	d := &tn.loud.h.d
	if is.outcome != outcome.PortFull && is.outcome != outcome.PortMACLimit || d.Match.By&(v4.MatchOption82|v4.MatchVLAN) == 0 || d.Match.Vacant != nil {
		return
	}
	tn.seen["a line is full"]++
	lines := d.Match.Loc.Lines
	if c.at.index >= ifVLAN {
		lines, _ = tn.snap.ByVLAN(uint16(100 + c.at.index - ifVLAN))
	}
	there := map[provision.MAC]bool{}
	for l := range lines.All() {
		for a := range l.Hosts4() {
			rec, _ := tn.loud.h.s.deps.Leases.Get(a)
			switch {
			case !rec.Live(tn.now) || rec.MAC == c.mac:
			case tn.given(&rec, l):
				there[rec.MAC] = true
			case is.outcome == outcome.PortFull:
				tn.harm(c, "a line is full: "+c.name, "%s has %v, and got it elsewhere (%s, option 82 %x)", rec.MAC, a, rec.Interface, rec.Option82)
			}
		}
	}
	if is.outcome == outcome.PortMACLimit && len(there) < tn.opts.MaxPortMACs {
		tn.harm(c, "too many on a line: "+c.name, "%d are there, %d may be", len(there), tn.opts.MaxPortMACs)
	}
}

// harm is what a stranger did to somebody.
type harm struct{ kind, text string }

// harm notes what a stranger did; c, if any, is who suffers from it. The town goes on.
func (tn *town) harm(c *citizen, kind, format string, args ...any) {
	if c != nil {
		c.astray = true
	}
	tn.harms = append(tn.harms, harm{kind, fmt.Sprintf("%s: %s: ", tn, kind) + fmt.Sprintf(format, args...) + "\n" + tn.tale()})
}

// unharmedAll fails the test that a town belongs to if anybody came to harm.
func (tn *town) unharmedAll(t testing.TB) {
	t.Helper()
	for _, h := range tn.harms {
		t.Error(h.text)
	}
	if len(tn.harms) > 0 {
		t.FailNow()
	}
}

// live lets a town live for a number of steps.
func (tn *town) live(steps int) {
	for range steps {
		tn.pass()
		tn.honest()
		for range tn.bad.IntN(4) {
			a := tn.attempt()
			tn.disturb(a)
			if a.floods > 0 { // who is meant is heard all the same
				tn.ask(a.victim, tn.next(a.victim))
			}
		}
	}
}

func TestStrangers(t *testing.T) {
	seen := map[string]int{}
	harms := map[string]harm{}
	count := map[string]int{}
	for seed := range uint64(long.Times(t, 40, 500)) {
		tn := newTown(t, seed)
		tn.live(150)
		for _, h := range tn.harms {
			count[h.kind]++
			if old, known := harms[h.kind]; !known || len(h.text) < len(old.text) {
				harms[h.kind] = h
			}
		}
		for k, n := range tn.seen {
			seen[k] += n
		}
	}
	for _, k := range slices.Sorted(maps.Keys(harms)) {
		t.Errorf("%d times: %s", count[k], harms[k].text)
	}
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%8d %s", seen[k], k)
	}
	// The towns are worth nothing if what they are about does not happen in them.
	for _, k := range []string{
		"ack", "offer", "pool_ack", "pool_offer", "released", "pool_released", "declined", "a new router", "a reload",
		"the ERP: a MAC is changed", "the ERP: a line is made vacant, or has its address again", "the ERP: customers move", "a live lease is looked at", "a stranger is reported",
		"taken for a customer of a wire without lines", "limited with strangers on a wire without lines",
		"stranger: ack", "stranger: offer", "stranger: pool_ack", "stranger: pool_offer", "stranger: inform_ack", "stranger: nak_not_bound", "stranger: nak_other_client",
		"stranger: nak_wrong_address", "stranger: released", "stranger: declined", "stranger: release_unknown", "stranger: decline_unknown", "stranger: leasequery_refused", "stranger: relay_interface",
		"taken for one of two at a port", "stranger: relay_no_source", "stranger: relay_source", "stranger: relay_subscriber", "stranger: relay_untrusted", "stranger: option82_untrusted", "stranger: mac_reported", "stranger: mac_refused", "stranger: port_full", "stranger: malformed",
		"through the plain relay: option82_untrusted", "through the plain relay: relay_source", "through the plain relay: offer", "through the plain relay: mac_elsewhere",
		"a flood that ends limited_client", "a flood that ends limited_port", "a flood that ends limited_relay",
	} {
		if seen[k] == 0 {
			t.Errorf("%s: it never happened", k)
		}
	}
}

// FuzzStrangers lets the fuzzer choose a town, and the packet of a stranger with where it comes from.
func FuzzStrangers(f *testing.F) {
	for seed := range uint64(16) {
		tn := newTown(f, seed)
		tn.honest()
		f.Add(seed, tn.attempt().Data, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, raw []byte, where uint8) {
		if len(raw) > 1500 {
			return
		}
		tn := newTown(t, seed)
		{
			for range 40 {
				tn.pass()
				tn.honest()
			}
			a := attempt{victim: tn.people[0]}
			a.Data, a.To = raw, serverIP
			a.Ifindex = []int{ifUp, ifEth, ifVLAN + 5, ifEth}[where&3]
			sources := []netip.Addr{netip.IPv4Unspecified(), tn.people[int(where)%len(tn.people)].addr, shared(66), serverIP, relayIP, host(203), ip("203.0.113.66"), relay2}
			src := sources[where>>2&7]
			if !src.IsValid() {
				src = host(66)
			}
			a.From = netip.AddrPortFrom(src, 68)
			tn.unbelieved(&a)
			tn.disturb(a)
			for range 20 {
				tn.pass()
				tn.honest()
			}
		}
		tn.unharmedAll(t)
	})
}
