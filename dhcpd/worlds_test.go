package dhcpd

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A town is a network whose customers behave: they ask, take what is offered, renew, come back
// and give back, each where the ERP has it. It has two servers that hear the customers alike.
// Strangers (worlds_strangers_test.go) are heard by the loud one only, so whatever differs is their doing.
type town struct {
	t      testing.TB
	rng    *rand.Rand // of the customers
	bad    *rand.Rand // of the strangers
	seed   uint64
	now    time.Time
	opts   Options
	in     provision.Input
	snap   *provision.Snapshot
	quiet  *office
	loud   *office
	people []*citizen
	places []place               // of strangers with a line of their own
	had    [][]provision.Address // by row of the ERP: the addresses that it lost
	news   []provision.MACReport
	heard  map[provision.MAC][]place // on lines that are vouched for
	seen   map[string]int            // happenings
	step   int
	plain  bool            // the ERP has every MAC that it can have, and nobody an identifier that the ERP does not need
	told   []func() string // the last packets, for the message of a failure
	harms  []harm
}

// The interfaces of a town, by index.
const (
	ifUp   = 1 + iota // uplink: the relays are behind it
	ifCore            // to a switch that inserts option 82 without being a relay
	ifEth             // a wire that many share
	ifVLAN            // vlan100, and those after it
)

const townVLANs = 6

func ifName(index int) string {
	if index >= ifVLAN {
		return fmt.Sprintf("vlan%d", 100+index-ifVLAN)
	}
	return []string{ifUp: "up0", ifCore: "core", ifEth: "eth0"}[index]
}

var (
	relay2   = ip("198.51.100.7") // it inserts no option 82
	relayOut = ip("198.51.100.2") // what relayIP sends from
	bridged  = ip("10.9.0.9")     // a switch that relays from an address of the shared wire
	ethIP    = ip("10.9.0.254")
	switch3  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf3}
)

// insertingRelays are those whose option 82 is the relay's word: all but relay2, with the addresses that they send from.
func insertingRelays() []string {
	return []string{relayIP.String(), relayOut.String(), bridged.String()}
}

func shared(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, n}) }

// townLinks are the host of a town's servers.
func townLinks() *fakeLinks {
	links := &fakeLinks{}
	all := []provision.Interface{
		{Index: ifUp, Name: ifName(ifUp), Up: true, Addrs: prefixes("203.0.113.254/24")},
		{Index: ifCore, Name: ifName(ifCore), Up: true, Addrs: prefixes("192.0.2.254/24")},
		{Index: ifEth, Name: ifName(ifEth), Up: true, Addrs: prefixes("10.9.0.254/24")},
	}
	for i := range townVLANs {
		all = append(all, provision.Interface{Index: ifVLAN + i, Name: ifName(ifVLAN + i), Up: true, Addrs: prefixes("192.0.2.254/32")})
	}
	links.set(all...)
	return links
}

// place is where a client is.
type place struct {
	index   int        // of the interface
	gi, via netip.Addr // the relay's address, and the one that it sends from; invalid: none
	opt82   []byte     // what the relay or switch inserts
}

// vouched reports whether the place tells a line whose word counts.
func (tn *town) vouched(p *place) bool {
	switch {
	case p.index >= ifVLAN:
		return true
	case p.gi.IsValid():
		return len(p.opt82) > 0
	}
	return len(p.opt82) > 0 && slices.Contains(tn.opts.TrustedInterfaces, ifName(p.index))
}

// citizen is a customer, or a guest, with its router.
type citizen struct {
	name    string
	mac     provision.MAC
	id      []byte
	at      place
	guest   bool // it takes what is left of a pool: the servers need not agree
	snoops  bool // the switch adds option 82 to what is sent to the server alone, too
	offered netip.Addr
	by      netip.Addr // server that offered
	addr    netip.Addr // what it has, or had last
	until   time.Time
	row     int  // of its line in the ERP's data, from 1; 0: it is in none
	astray  bool // a stranger that nobody can tell from it was answered: the servers may disagree about it
	posed   bool // a stranger was taken for it while it had no lease: it may be refused once
	refused bool // it was: in the next exchange it is answered as it would be
}

func (c *citizen) has(now time.Time) bool { return c.addr.IsValid() && now.Before(c.until) }

// fresh reports whether a pool owes it no certain address.
func (c *citizen) fresh(now time.Time) bool { return !c.has(now) && !c.offered.IsValid() }

// office is one of the servers.
type office struct {
	h       *handler
	reports []provision.MACReport // of the packet at hand
}

func (tn *town) office() *office {
	links := townLinks()
	s, err := New(tn.opts, Deps{
		Snapshot: func() *provision.Snapshot { return tn.snap }, Leases: lease.New(), Journal: &journal{},
		Observer: Observers{}, Links: links, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return tn.now },
	})
	require.NoError(tn.t, err)
	return &office{h: newHandler(s, newCommitter(s, discard{}), discard{}, newInterfaces(nil, links))}
}

// answer is what a server makes of a packet.
type answer struct {
	outcome outcome.Outcome
	kind    wire.MessageType // 0: none
	ip      netip.Addr       // of an OFFER or ACK
	lease   uint32
	way     wire.Way
	to      netip.AddrPort
	reports string
}

// hear takes a packet through the server, with whatever waits for the disk.
func (o *office) hear(now time.Time, g socket.Datagram) answer {
	g.Data = bytes.Clone(g.Data)
	o.reports = o.reports[:0]
	h := o.h
	h.handle(now, g)
	for len(h.c.queue) > 0 {
		p := <-h.c.queue
		if p.hasReport {
			o.reports = append(o.reports, p.report)
		}
		h.c.pool.Put(p)
	}
	d := &h.d
	a := answer{outcome: d.Outcome, kind: d.Reply.Type, ip: d.Reply.YIAddr, way: d.Way, to: d.To}
	if a.kind == wire.Ack || a.kind == wire.Offer {
		a.lease = d.Reply.LeaseTime
	}
	for _, r := range o.reports {
		a.reports += fmt.Sprintf("%v is %v ", r.IP, r.MAC)
	}
	return a
}

func newTown(t testing.TB, seed uint64) *town {
	t.Helper()
	tn := &town{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), bad: rand.New(rand.NewPCG(seed, 3)),
		now:  time.Date(2126, 5, 1, 12, 0, 0, 0, time.UTC), // later than now: every lease that is not over counts for access.Sources
		seen: map[string]int{}, heard: map[provision.MAC][]place{},
	}
	tn.opts = tn.options()
	tn.open()
	return tn
}

// open lets people and servers begin.
func (tn *town) open() {
	tn.settle()
	tn.publish()
	tn.quiet, tn.loud = tn.office(), tn.office()
}

func (tn *town) one(n int) bool { return tn.rng.IntN(n) == 0 }

func among[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (tn *town) options() Options {
	r := tn.rng
	o := testOptions()
	o.ServerID = serverIP
	o.Authoritative, o.RapidCommit = tn.one(2), tn.one(3)
	o.Relays = prefixes("198.51.100.0/24", "10.9.0.9/32")
	o.CheckRelaySource, o.Option82Relays = line.SourceListed, insertingRelays()
	o.TrustedInterfaces = []string{"core"}
	if tn.one(4) {
		o.TrustedInterfaces = []string{line.NoInterface}
	}
	if tn.one(2) {
		o.SubscriberInterfaces = []string{"eth*"}
	}
	o.VLANInterfaces = []string{"vlan{vlan}"}
	o.Match = among(r,
		[]v4.MatchKind{v4.MatchOption82, v4.MatchVLAN, v4.MatchMAC},
		[]v4.MatchKind{v4.MatchVLAN, v4.MatchOption82, v4.MatchMAC},
		[]v4.MatchKind{v4.MatchOption82, v4.MatchVLAN, v4.MatchClientID, v4.MatchMAC},
		[]v4.MatchKind{v4.MatchOption82 + v4.MatchMAC, v4.MatchVLAN + v4.MatchMAC, v4.MatchMAC},
		[]v4.MatchKind{v4.MatchOption82 + v4.MatchMAC, v4.MatchOption82, v4.MatchVLAN, v4.MatchMAC},
		[]v4.MatchKind{v4.MatchOption82, v4.MatchVLAN},
	)
	o.Subnets[0].LeaseTime = among(r, 2*time.Minute, 10*time.Minute, time.Hour)
	o.Subnets = append(o.Subnets, v4.Subnet{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: ethIP, LeaseTime: among(r, 2*time.Minute, 10*time.Minute, time.Hour)})
	o.ClientIDs = []v4.ClientID{{Text: "cpe", IP: shared(14)}, {Text: "olt", IP: host(12)}}
	o.ClientKey = among(r, v4.ClientKeyMAC, v4.ClientKeyMAC, v4.ClientKeyID)
	o.MACChange = among(r, v4.MACAccept, v4.MACAccept, v4.MACReport, v4.MACRefuse)
	o.BindingChange = v4.BindingChange(r.IntN(2))
	o.MaxPortMACs = among(r, 0, 0, 2, 3)
	o.Unknown = v4.Unknown(r.IntN(3))
	if tn.one(3) {
		o.Limits = tightLimits()
	}
	links := prefixes("198.51.100.0/24", "10.9.0.0/24")
	if tn.one(2) {
		o.Pools = []v4.Pool{{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: host(200), Last: host(205)}, LeaseTime: among(r, time.Minute, 10*time.Minute), Links: links}}
	}
	if !tn.one(3) {
		o.Pools = append(o.Pools, v4.Pool{Name: "flats", Kind: v4.PoolSubscribers, Range: v4.Range{First: host(210), Last: host(219)}, LeaseTime: among(r, time.Minute, 10*time.Minute), Links: links})
	}
	return o
}

// tightLimits are soon used up by who floods, and never by who behaves. A relay's is that of all ports of strangers behind it, and more.
func tightLimits() Limits {
	return Limits{Client: Limit{Rate: 5, Burst: 20}, Port: Limit{Rate: 20, Burst: 40}, Relay: Limit{Rate: 100, Burst: 200}}
}

// settle lets people move in: on each kind of line, with and without the MAC in the ERP.
func (tn *town) settle() {
	tn.in = provision.Input{
		FetchedAt: tn.now, KeepVacant: tn.opts.keepsVacant(),
		Devices: []provision.Device{
			{ID: 1, Name: "sw1", Model: "A", MAC: switch1, IP: ip("198.51.100.11")},
			{ID: 2, Name: "sw2", Model: "B", MAC: switch2, IP: ip("198.51.100.12")},
			{ID: 3, Name: "sw3", Model: "C", MAC: switch3, IP: bridged},
		},
	}
	sub := provision.SubscriberID(0)
	mac := byte(0x10)
	add := func(name string, l provision.Line, at place, c citizen) {
		sub++
		mac++
		l.Subscriber = sub
		c.name, c.at, c.mac = name, at, client(mac)
		c.snoops = !tn.plain && tn.one(2)
		if tn.plain {
			// as it is
		} else if tn.one(3) {
			c.id = append([]byte{1}, c.mac[:]...)
		} else if tn.one(4) && c.id == nil {
			c.id = []byte("the same for all")
		}
		known := l.MAC == client(0)
		switch {
		case known || !tn.plain && tn.one(3):
			l.MAC = c.mac
		case !tn.plain && tn.one(3) && len(l.Addresses) > 0:
			l.MAC = client(0x80 + mac) // of the router before
		}
		tn.people = append(tn.people, &c)
		if c.guest {
			return
		}
		if len(l.Addresses) > 0 || tn.in.KeepVacant {
			tn.in.Lines = append(tn.in.Lines, l)
			c.row = len(tn.in.Lines)
		}
		tn.in.Subscribers = append(tn.in.Subscribers, provision.Subscriber{ID: sub, State: provision.StateActive})
	}
	hosts := func(a netip.Addr) []provision.Address { return provision.Hosts4(a) }
	relayed := func(n byte) place {
		return place{index: ifUp, gi: relayIP, via: among(tn.rng, relayIP, relayOut), opt82: port(switch1, n)}
	}
	snooped := func(n byte) place { return place{index: ifCore, opt82: port(switch2, n)} }
	onEth := place{index: ifEth}
	vlan := func(n int) place { return place{index: ifVLAN + n} }
	must := client(0) // the ERP has the MAC

	add("a port", provision.Line{Addresses: hosts(host(11)), Device: 1, Port: 1, MAC: when(tn.plain, must)}, relayed(1), citizen{})
	add("a second port", provision.Line{Addresses: hosts(host(12)), Device: 1, Port: 2}, relayed(2), citizen{})
	add("one of two addresses of a port", provision.Line{Addresses: hosts(host(13)), Device: 1, Port: 3, MAC: must}, relayed(3), citizen{})
	sub-- // they are one customer's
	add("the other of two", provision.Line{Addresses: hosts(host(14)), Device: 1, Port: 3}, relayed(3), citizen{})
	add("behind a relay without option 82", provision.Line{Addresses: hosts(host(21)), MAC: must}, place{index: ifUp, gi: relay2, via: relay2}, citizen{})
	add("a snooping switch", provision.Line{Addresses: hosts(host(31)), Device: 2, Port: 1, MAC: must}, snooped(1), citizen{})
	add("a snooping switch, second port", provision.Line{Addresses: hosts(host(32)), Device: 2, Port: 2}, snooped(2), citizen{})
	add("a VLAN", provision.Line{Addresses: hosts(host(41)), VLAN: 100}, vlan(0), citizen{})
	add("a VLAN with the MAC", provision.Line{Addresses: hosts(host(42)), VLAN: 101, MAC: must}, vlan(1), citizen{})
	add("the shared wire", provision.Line{Addresses: hosts(shared(11)), MAC: must}, onEth, citizen{})
	add("the shared wire, too", provision.Line{Addresses: hosts(shared(12)), MAC: must}, onEth, citizen{})
	add("the shared wire, by identifier", provision.Line{Addresses: hosts(shared(14)), MAC: must}, onEth, citizen{id: []byte("\x00cpe")})
	add("an access switch in the customers' VLAN", provision.Line{Addresses: hosts(shared(21)), Device: 3, Port: 1, MAC: when(tn.plain, must)}, place{index: ifEth, gi: bridged, via: bridged, opt82: port(switch3, 1)}, citizen{})
	add("a vacant port", provision.Line{Device: 1, Port: 6}, relayed(6), citizen{})
	add("a vacant port with the MAC", provision.Line{Device: 1, Port: 7, MAC: must}, relayed(7), citizen{})
	add("a vacant VLAN", provision.Line{VLAN: 102}, vlan(2), citizen{})
	add("vacant, by MAC", provision.Line{MAC: must}, onEth, citizen{})
	add("a guest of a port", provision.Line{}, relayed(40), citizen{guest: true})
	add("a guest of the shared wire", provision.Line{}, onEth, citizen{guest: true})

	tn.had = make([][]provision.Address, len(tn.in.Lines))

	// Nobody's: a customer without DHCP, and the lines of strangers.
	tn.in.Lines = append(tn.in.Lines,
		provision.Line{Subscriber: 90, Addresses: hosts(shared(50))},
		provision.Line{Subscriber: 91, Addresses: hosts(host(51)), Device: 1, Port: 9, MAC: client(0x91)},
		provision.Line{Subscriber: 92, Addresses: hosts(host(52)), VLAN: 103},
	)
	tn.places = []place{relayed(9), relayed(8), vlan(3), vlan(4), snooped(9)}
}

func when[T any](yes bool, v T) (none T) {
	if yes {
		return v
	}
	return none
}

// publish makes the ERP's data known.
func (tn *town) publish() {
	tn.in.Source, tn.in.FetchedAt = provision.SourceDirect, tn.now
	tn.snap, _ = provision.Build(tn.in)
	require.NotNil(tn.t, tn.snap)
	for _, o := range tn.offices() {
		o.h.s.deps.Leases.Adopt(tn.snap, tn.now)
	}
}

// offices are those that are open.
func (tn *town) offices() []*office {
	if tn.quiet == nil {
		return nil
	}
	return []*office{tn.quiet, tn.loud}
}

// line returns what the ERP has for a citizen; nil: nothing.
func (tn *town) line(c *citizen) *provision.Line {
	if c.row == 0 {
		return nil
	}
	return &tn.in.Lines[c.row-1]
}

// learn is the ERP that takes the reports.
func (tn *town) learn() {
	if len(tn.news) == 0 {
		return
	}
	for _, n := range tn.news {
		for i := range tn.in.Lines {
			l := &tn.in.Lines[i]
			if !slices.Contains(l.Addresses, provision.Hosts4(n.IP)[0]) {
				continue
			}
			if !l.MAC.IsZero() && l.MAC != n.MAC && n.Replaces.Known && l.MAC != n.Replaces.MAC {
				tn.seen["a report is dropped: the ERP has another MAC meanwhile"]++
				continue
			}
			l.MAC = n.MAC
			for _, o := range tn.offices() {
				o.h.s.deps.Leases.Taken(n.IP, n.MAC, provision.SourceDirect, tn.now)
			}
		}
	}
	tn.news = tn.news[:0]
	tn.publish()
}

// datagram is a packet of a client at a place; alone: it is sent to the server by the client itself.
func (c *citizen) datagram(q wire.Query, alone bool) socket.Datagram {
	q.MAC = c.mac
	if len(c.id) > 0 {
		q.Options = append(q.Options, clientID(c.id...))
	}
	g := socket.Datagram{Ifindex: c.at.index, From: netip.AddrPortFrom(netip.IPv4Unspecified(), 68)}
	if !alone || !c.at.gi.IsValid() && c.snoops {
		q.Option82 = c.at.opt82
	}
	switch {
	case alone && c.at.gi.IsValid():
		g.Ifindex, g.From, g.To = ifUp, netip.AddrPortFrom(q.CIAddr, 68), serverIP
	case alone:
		g.From, g.To = netip.AddrPortFrom(q.CIAddr, 68), serverIP
	case c.at.gi.IsValid():
		q.GIAddr = c.at.gi
		g.From, g.To = netip.AddrPortFrom(c.at.via, 67), serverIP
	case q.CIAddr.IsValid():
		g.From = netip.AddrPortFrom(q.CIAddr, 68)
	}
	g.Data = q.Append(nil)
	return g
}

// next is what a citizen sends now.
func (tn *town) next(c *citizen) socket.Datagram {
	q := wire.Query{XID: tn.rng.Uint32()}
	alone := false
	switch {
	case c.offered.IsValid():
		q.Type, q.Options = wire.Request, []wire.Option{requested(c.offered), chosen(c.by)}
	case c.has(tn.now) && tn.one(12):
		q.Type, q.CIAddr, q.Options, alone = wire.Release, c.addr, []wire.Option{chosen(serverIP)}, true
	case c.has(tn.now) && tn.one(20):
		q.Type, q.CIAddr, alone = wire.Inform, c.addr, true
	case c.has(tn.now) && tn.one(30):
		q.Type, q.Options = wire.Decline, []wire.Option{requested(c.addr), chosen(serverIP)}
	case c.has(tn.now) && tn.one(8), c.addr.IsValid() && tn.one(3):
		q.Type, q.Options = wire.Request, []wire.Option{requested(c.addr)} // it starts anew
	case c.has(tn.now):
		q.Type, q.CIAddr, alone = wire.Request, c.addr, !tn.one(4)
	default:
		q.Type = wire.Discover
		if c.addr.IsValid() && tn.one(2) {
			q.Options = append(q.Options, requested(c.addr))
		}
		if tn.one(5) {
			q.Options = append(q.Options, wire.Option{Code: 80})
		}
	}
	return c.datagram(q, alone)
}

// honest lets a citizen send, and both servers answer.
func (tn *town) honest() {
	tn.step++
	c := among(tn.rng, tn.people...)
	for _, other := range tn.people {
		if other.offered.IsValid() && !tn.one(4) { // whoever was offered an address takes it soon
			c = other
			break
		}
	}
	if !c.has(tn.now) && !c.offered.IsValid() && tn.vouched(&c.at) && !c.guest && tn.one(40) {
		c.mac[1]++ // a new router
		tn.seen["a new router"]++
	}
	tn.ask(c, tn.next(c))
}

// ask lets both servers hear a citizen.
func (tn *town) ask(c *citizen, g socket.Datagram) {
	tn.say("%s (%v) %s", c.name, c.mac, shown(g))
	if tn.vouched(&c.at) && !slices.ContainsFunc(tn.heard[c.mac], func(p place) bool { return p.index == c.at.index && bytes.Equal(p.opt82, c.at.opt82) }) {
		tn.heard[c.mac] = append(tn.heard[c.mac], c.at)
	}
	was, is := tn.quiet.hear(tn.now, g), tn.loud.hear(tn.now, g)
	tn.say("  %s %v, alone %s %v", is.outcome, is.ip, was.outcome, was.ip)
	tn.news = append(tn.news, tn.quiet.reports...)
	tn.checkFull(c, is)
	pooled := was.outcome == is.outcome && (is.outcome == outcome.PoolOffer || is.outcome == outcome.PoolAck) && was.ip != is.ip
	if (pooled || tn.lent(c, was, is)) && c.fresh(tn.now) {
		c.guest = true // another address of the pool, for the one was taken by a stranger who may: from now on it has another lease with each server
	}
	switch {
	case c.guest || tn.guestly(was.ip) || tn.guestly(is.ip) || tn.guestly(c.addr) || tn.guestly(c.offered): // the pool of guests is everybody's
	case was == is:
		if is.kind == wire.Ack && is.ip.IsValid() && tn.agreed(is.ip) {
			c.astray, c.posed, c.refused = false, false, false
		}
	case tn.sharesWith(g) && strings.HasPrefix(is.outcome.String(), "limited"): // with strangers on the same wire: nothing tells them apart
		tn.seen["limited with strangers on a wire without lines"]++
		c.astray = true
	case c.astray:
	case c.posed && !c.refused && tn.loud.h.r.P.Type() == wire.Request && (is.kind == wire.Nak || is.kind == 0):
		tn.seen["refused once because of a stranger"]++
		c.refused = true
	case c.posed && is.outcome == outcome.MACReported: // who has the MAC that the operator wrote was taken for its new router: the ERP is to say which one it is
		tn.seen["it waits for the ERP because of a stranger"]++
	case c.posed && was.kind == is.kind && (was.ip == is.ip || pooled): // it has the address, from another client
		tn.seen["taken back from a stranger"]++
	case c.posed && was.kind == is.kind && tn.ofPort(c, was.ip) && tn.ofPort(c, is.ip): // another address of its port
		for _, x := range tn.mates(c) {
			x.astray = true // from now on each server has other addresses for them
		}
		tn.seen["another address of a port because of a stranger"]++
	default:
		tn.harm(c, fmt.Sprintf("answer: %s: %s in place of %s", c.name, is.outcome, was.outcome), "%s (%v) is answered %+v in place of %+v", c.name, c.mac, is, was)
	}
	tn.seen[is.outcome.String()]++
	tn.believe(c, is)
}

// lent reports whether a citizen whose lease is over does not get its last address of a pool back, for another one has that by now: a pool
// keeps it for nobody, and a stranger who is taken for a customer without an address may ask for it.
func (tn *town) lent(c *citizen, was, is answer) bool {
	if was.outcome != outcome.PoolAck || is.kind != 0 && is.kind != wire.Nak {
		return false
	}
	rec, _ := tn.loud.h.s.deps.Leases.Get(was.ip)
	return rec.Live(tn.now) && rec.Pool != "" && rec.MAC != c.mac
}

// agreed reports whether both servers have the same lease of an address.
func (tn *town) agreed(a netip.Addr) bool {
	x, _ := tn.quiet.h.s.deps.Leases.Get(a)
	y, _ := tn.loud.h.s.deps.Leases.Get(a)
	x.Start, x.Renewed, x.Prior = y.Start, y.Renewed, y.Prior
	return equalRecord(x, y)
}

// guestly reports whether an address is for guests, in this configuration or one before.
func (tn *town) guestly(a netip.Addr) bool {
	return a.IsValid() && !a.Less(host(200)) && !host(205).Less(a)
}

// believe is what a citizen makes of an answer.
func (tn *town) believe(c *citizen, a answer) {
	d := &tn.loud.h.d
	gone := func() { c.until, c.offered = time.Time{}, netip.Addr{} }
	switch {
	case a.kind == wire.Offer:
		c.offered, c.by = a.ip, d.Reply.ServerID
	case a.kind == wire.Nak:
		gone()
		c.addr = netip.Addr{}
	case a.kind == wire.Ack && a.outcome != outcome.InformAck:
		c.offered, c.addr, c.until = netip.Addr{}, a.ip, tn.now.Add(time.Duration(a.lease)*time.Second)
		for _, other := range tn.people {
			if other != c && other.addr == a.ip && other.has(tn.now) && !(tn.vouched(&c.at) && bytes.Equal(c.at.opt82, other.at.opt82)) { // two routers of one customer
				tn.harm(c, "two have one address: "+a.outcome.String(), "%s has %v, and %s is given it", other.name, a.ip, c.name)
			}
		}
	case d.Outcome == outcome.Released, d.Outcome == outcome.PoolReleased, d.Outcome == outcome.Declined, d.Outcome == outcome.PoolDeclined:
		gone()
	default:
		c.offered = netip.Addr{}
	}
}

func (tn *town) String() string { return fmt.Sprintf("town %d, step %d", tn.seed, tn.step) }

// say notes what happens, for a failure.
func (tn *town) say(format string, args ...any) {
	tn.told = append(tn.told, func() string { return fmt.Sprintf(format, args...) })
	if len(tn.told) > 24 {
		tn.told = slices.Delete(tn.told, 0, 1)
	}
}

func (tn *town) tale() string {
	o := &tn.opts
	s := fmt.Sprintf("match %v, client_key %d, mac_change %d, macs %d, unknown %d, trusted %v, subscribers %v, pools %d, authoritative %v\n",
		o.Match, o.ClientKey, o.MACChange, o.MaxPortMACs, o.Unknown, o.TrustedInterfaces, o.SubscriberInterfaces, len(o.Pools), o.Authoritative)
	for _, l := range tn.told {
		s += l() + "\n"
	}
	return s
}

// shown is a packet that is a line of text.
type shown socket.Datagram

func (g shown) String() string {
	var p wire.Packet
	if err := p.Parse(g.Data); err != nil {
		return fmt.Sprintf("%v on %s: %v", g.From, ifName(g.Ifindex), err)
	}
	mac, _ := p.MAC()
	return fmt.Sprintf("%s from %v to %v on %s: chaddr %v ciaddr %v giaddr %v option 50 %v 54 %v 61 %q 82 %x rapid %v", p.Type(), g.From, g.To, ifName(g.Ifindex), mac, p.CIAddr(), p.GIAddr(),
		p.Requested(), p.ServerID(), p.ClientID(), p.RelayInfo(), p.RapidCommit())
}

// pass lets time pass, and the ERP learn.
func (tn *town) pass() {
	most := 20_000
	if tn.one(3) {
		most = 300
	}
	tn.now = tn.now.Add(time.Duration(tn.rng.IntN(most)) * time.Millisecond)
	if tn.one(4) {
		tn.learn()
	}
	if tn.one(25) {
		tn.edit()
	}
	if tn.one(60) {
		tn.reload()
	}
}

// edit is what somebody at the provider changes in the ERP.
func (tn *town) edit() {
	c := among(tn.rng, tn.people...)
	l := tn.line(c)
	if l == nil {
		return
	}
	switch what := tn.rng.IntN(4); what {
	case 0, 1:
		l.MAC = among(tn.rng, provision.MAC{}, c.mac, client(0xa0))
		tn.seen["the ERP: a MAC is changed"]++
	case 2: // the customer gives up the address, or comes back to it
		if len(l.Addresses)+len(tn.had[c.row-1]) == 0 {
			return
		}
		l.Addresses, tn.had[c.row-1] = tn.had[c.row-1], l.Addresses
		tn.seen["the ERP: a line is made vacant, or has its address again"]++
	case 3: // two customers move to each other's home
		with := among(tn.rng, tn.people...)
		m := tn.line(with)
		if m == nil || m == l || l.Port == 0 || m.Port == 0 || c.at.index != with.at.index || c.at.gi != with.at.gi || tn.shares(c) || tn.shares(with) {
			return
		}
		c.at, with.at = with.at, c.at
		l.Device, m.Device = m.Device, l.Device
		l.Port, m.Port = m.Port, l.Port
		tn.seen["the ERP: customers move"]++
	}
	tn.publish()
}

// shares reports whether somebody else is at the port of a citizen.
func (tn *town) shares(c *citizen) bool {
	return slices.ContainsFunc(tn.people, func(x *citizen) bool {
		return x != c && x.row != 0 && len(c.at.opt82) > 0 && bytes.Equal(x.at.opt82, c.at.opt82)
	})
}

// mates are who is at the port of a citizen, itself among them.
func (tn *town) mates(c *citizen) (out []*citizen) {
	for _, x := range tn.people {
		if bytes.Equal(x.at.opt82, c.at.opt82) {
			out = append(out, x)
		}
	}
	return out
}

// ofPort reports whether an address is one of those of the port that a citizen shares with others.
func (tn *town) ofPort(c *citizen, a netip.Addr) bool {
	return tn.shares(c) && slices.ContainsFunc(tn.mates(c), func(x *citizen) bool {
		l := tn.line(x)
		return l != nil && a.IsValid() && slices.Contains(l.Addresses, provision.Hosts4(a)[0])
	})
}

// reload gives both servers another configuration. Whom they are to believe stays.
func (tn *town) reload() {
	o := tn.options()
	o.TrustedInterfaces, o.SubscriberInterfaces, o.ClientKey = tn.opts.TrustedInterfaces, tn.opts.SubscriberInterfaces, tn.opts.ClientKey
	tn.opts = o
	for _, s := range []*office{tn.quiet, tn.loud} {
		require.NoError(tn.t, s.h.s.Reload(o))
	}
	tn.seen["a reload"]++
}
