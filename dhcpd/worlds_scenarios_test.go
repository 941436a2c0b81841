package dhcpd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// plainTown is a town of which all is said here: every MAC that the ERP can have, on every kind of line.
func plainTown(t testing.TB, change func(*Options)) *town {
	t.Helper()
	tn := &town{
		t: t, plain: true, rng: rand.New(rand.NewPCG(1, 2)), bad: rand.New(rand.NewPCG(1, 3)),
		now: time.Date(2126, 5, 1, 12, 0, 0, 0, time.UTC), seen: map[string]int{}, heard: map[provision.MAC][]place{},
	}
	o := plainOptions()
	if change != nil {
		change(&o)
	}
	tn.opts = o
	tn.open()
	return tn
}

// plainOptions are those of a plain town.
func plainOptions() Options {
	o := testOptions()
	o.ServerID = serverIP
	o.Relays, o.CheckRelaySource = prefixes("198.51.100.0/24", "10.9.0.9/32"), line.SourceListed
	o.Option82Relays = insertingRelays()
	o.TrustedInterfaces, o.SubscriberInterfaces, o.VLANInterfaces = []string{"core"}, []string{"eth*"}, []string{"vlan{vlan}"}
	o.Match = []v4.MatchKind{v4.MatchOption82, v4.MatchVLAN, v4.MatchMAC}
	o.Subnets = append(o.Subnets, v4.Subnet{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: ethIP, LeaseTime: time.Hour})
	o.ClientIDs = []v4.ClientID{{Text: "cpe", IP: shared(14)}}
	o.Unknown, o.RapidCommit = v4.UnknownGuest, true
	links := prefixes("198.51.100.0/24", "10.9.0.0/24")
	o.Pools = []v4.Pool{
		{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: host(200), Last: host(205)}, LeaseTime: 10 * time.Minute, Links: links},
		{Name: "flats", Kind: v4.PoolSubscribers, Range: v4.Range{First: host(210), Last: host(219)}, LeaseTime: 10 * time.Minute, Links: links},
	}
	return o
}

func (tn *town) citizen(name string) *citizen {
	for _, c := range tn.people {
		if c.name == name {
			return c
		}
	}
	tn.t.Fatalf("nobody is called %q", name)
	return nil
}

// What strangers tried, one kind after the other. Whatever they are answered, all that TestStrangers looks at holds
// after each packet, and the customer is answered as it would be without them.
func TestStrangersOneByOne(t *testing.T) {
	type from struct {
		index int
		src   func(v *citizen) netip.Addr // nil: 0.0.0.0
		line  int                         // a place of town.places, from 1
		plain func(v *citizen) netip.Addr // through the relay that inserts no option 82, with this giaddr and the option 82 of the customer
	}
	itself := func(v *citizen) netip.Addr { return v.addr }
	onEth, onUp, nobodysVLAN := from{index: ifEth}, from{index: ifUp, src: func(*citizen) netip.Addr { return ip("203.0.113.66") }}, from{index: ifVLAN + 5}
	asItself := from{index: ifUp, src: itself}
	spoofedVLAN, spoofedPort := from{line: 3, src: itself}, from{line: 5, src: itself}
	behindPlain := from{plain: func(*citizen) netip.Addr { return relay2 }}
	withItsRelay := from{plain: func(v *citizen) netip.Addr { return v.at.gi }}
	withAnotherRelay := from{plain: func(*citizen) netip.Addr { return relayIP }}
	knownPort, strangePort, ownVLAN, emptyVLAN, snoopedPort := from{line: 1}, from{line: 2}, from{line: 3}, from{line: 4}, from{line: 5}
	const (
		discover = 1 << iota
		rapid
		selecting
		reboot
		renew
		release
		decline
	)
	ask, end := discover|selecting|reboot|rapid, release|decline
	type way struct {
		name string
		from from
	}
	byClientID := func(o *Options) {
		o.Match = []v4.MatchKind{v4.MatchOption82, v4.MatchVLAN, v4.MatchClientID, v4.MatchMAC}
	}
	byLineOnly := func(o *Options) { o.Match = []v4.MatchKind{v4.MatchOption82, v4.MatchVLAN} }
	ofMAC := func(v *citizen) []byte { return append([]byte{1}, v.mac[:]...) }
	itsOwn := func(*citizen) []byte { return []byte("\x00its own") }
	asStranger := func(_ *citizen, q *wire.Query) { q.MAC = client(0xe1) }
	anotherID := func(_ *citizen, q *wire.Query) {
		q.Options = append(q.Options, clientID([]byte("another")...))
	}
	for _, tc := range []struct {
		name    string
		change  func(*Options)
		victim  string
		offered bool                    // the customer has an offer and no lease yet
		id      func(v *citizen) []byte // of the customer; nil: it has none
		does    int
		ways    []way
		write   func(v *citizen, q *wire.Query) // what else the stranger writes
	}{
		{name: "the MAC of a port", victim: "a port", does: ask, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort},
			{"in a VLAN of another", ownVLAN}, {"in a VLAN that the ERP lacks", emptyVLAN}, {"at a snooped port", snoopedPort}}},
		{name: "the MAC of a VLAN", victim: "a VLAN with the MAC", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort},
			{"in a VLAN of another", ownVLAN}, {"in a VLAN that the ERP lacks", emptyVLAN}, {"from its address", asItself}}},
		{name: "the MAC of a snooped port", victim: "a snooping switch", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort},
			{"in a VLAN of another", ownVLAN}, {"in a VLAN that the ERP lacks", emptyVLAN}, {"at a snooped port of another", snoopedPort}, {"from its address", asItself}}},
		{name: "the MAC and the option 82 of a snooped port", victim: "a snooping switch", does: ask | renew, ways: []way{{"on the shared wire", onEth}, {"on the uplink", onUp}},
			write: func(v *citizen, q *wire.Query) { q.Option82 = v.at.opt82 }},
		{name: "the option 82 of a port, through a relay that inserts none", victim: "a port", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}, write: asStranger},
		{name: "the MAC and the option 82 of a port, through a relay that inserts none", victim: "a port", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}},
		{name: "the option 82 of a second port, through a relay that inserts none", victim: "a second port", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}, write: asStranger},
		{name: "the option 82 of a snooped port, through a relay that inserts none", victim: "a snooping switch", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with a giaddr", withAnotherRelay}}, write: asStranger},
		{name: "the MAC and the option 82 of a snooped port, through a relay that inserts none", victim: "a snooping switch", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with a giaddr", withAnotherRelay}}},
		{name: "the option 82 of a switch in the customers' VLAN, through a relay that inserts none", victim: "an access switch in the customers' VLAN", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}, write: asStranger},
		{name: "the MAC and the option 82 of a switch in the customers' VLAN, through a relay that inserts none", victim: "an access switch in the customers' VLAN", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}},
		{name: "the option 82 of a vacant port, through a relay that inserts none", victim: "a vacant port", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}, write: asStranger},
		{name: "the option 82 of who was offered, through a relay that inserts none", victim: "a vacant port with the MAC", offered: true, does: ask, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}, write: asStranger},
		{name: "the option 82 of a guest, through a relay that inserts none", victim: "a guest of a port", does: ask | renew | end, ways: []way{{"", behindPlain}, {"with its giaddr", withItsRelay}}, write: asStranger},
		{name: "the MAC behind a switch in the customers' VLAN", victim: "an access switch in the customers' VLAN", does: ask, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"in a VLAN of another", ownVLAN}}},
		{name: "a renewal past the relay", victim: "a port", does: renew, ways: []way{
			{"from elsewhere on the shared wire", onEth}, {"from elsewhere on the uplink", onUp}, {"from its address", asItself}, {"from its address in nobody's VLAN", from{index: ifVLAN + 5, src: itself}},
			{"from its address in a VLAN of another", spoofedVLAN}, {"from its address at a snooped port", spoofedPort},
			{"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN of another", ownVLAN}, {"at a snooped port", snoopedPort}}},
		{name: "the MAC behind a relay that tells no port", victim: "behind a relay without option 82", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "the MAC of the shared wire", victim: "the shared wire", does: ask | renew, ways: []way{
			{"on it", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "the end of a lease of a port", victim: "a port", does: end, ways: []way{
			{"on the shared wire", onEth}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN of another", ownVLAN}, {"from its address in a VLAN of another", spoofedVLAN}, {"from its address at a snooped port", spoofedPort}}},
		{name: "the end of a lease in a VLAN", victim: "a VLAN with the MAC", does: end, ways: []way{
			{"on the shared wire", onEth}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN of another", ownVLAN}}},
		{name: "the end of a lease of a snooped port", victim: "a snooping switch", does: end, ways: []way{
			{"on the shared wire", onEth}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN of another", ownVLAN}, {"at a snooped port of another", snoopedPort}}},
		{name: "the end of a lease behind a relay that tells no port", victim: "behind a relay without option 82", does: end, ways: []way{
			{"on the shared wire", onEth}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN of another", ownVLAN}, {"from its address in a VLAN of another", spoofedVLAN}, {"from its address at a snooped port", spoofedPort}}},
		{name: "the end of a lease of the shared wire", victim: "the shared wire", does: end, ways: []way{
			{"on it", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"in a VLAN of another", ownVLAN}}},
		{name: "the end of a lease of a vacant port", victim: "a vacant port", does: end, ways: []way{
			{"on the shared wire", onEth}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"from its address in a VLAN of another", spoofedVLAN}, {"from its address at a snooped port", spoofedPort}}},
		{name: "the end of a lease of a vacant VLAN", victim: "a vacant VLAN", does: end, ways: []way{
			{"on the shared wire", onEth}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}}},
		{name: "the end of a lease of a vacant line of the shared wire", victim: "vacant, by MAC", does: end, ways: []way{{"on it", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}}},
		{name: "the end of a guest's lease", victim: "a guest of a port", does: end, ways: []way{{"on the shared wire", onEth}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"from its address in a VLAN of another", spoofedVLAN}, {"from its address at a snooped port", spoofedPort}}},
		{name: "the MAC of a vacant port", victim: "a vacant port with the MAC", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "the MAC of who leases at a vacant port", victim: "a vacant port", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "the MAC of who leases in a vacant VLAN", victim: "a vacant VLAN", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}}},
		{name: "the MAC of a vacant line of the shared wire", victim: "vacant, by MAC", does: ask | renew, ways: []way{
			{"on it", onEth}, {"on the uplink", onUp}, {"at a port that the ERP lacks", strangePort}}},
		{name: "the MAC of a guest", victim: "a guest of a port", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port that the ERP lacks", strangePort}}},
		{name: "the MAC of a guest of the shared wire", victim: "a guest of the shared wire", does: ask | renew, ways: []way{
			{"on it", onEth}, {"on the uplink", onUp}, {"at a port that the ERP lacks", strangePort}}},
		{name: "an offer to a vacant port", victim: "a vacant port with the MAC", offered: true, does: ask, ways: []way{
			{"on the shared wire", onEth}, {"in nobody's VLAN", nobodysVLAN}, {"at a port that the ERP lacks", strangePort}}},
		{name: "an offer to a vacant port, and another address of the pool", victim: "a vacant port with the MAC", offered: true, does: selecting | reboot, ways: []way{
			{"on the shared wire", onEth}, {"at a port that the ERP lacks", strangePort}},
			write: func(_ *citizen, q *wire.Query) {
				q.Options = append(q.Options[:0:0], requested(host(212)), chosen(serverIP))
			}},
		{name: "an offer to a port", victim: "a port", offered: true, does: ask, ways: []way{{"on the shared wire", onEth}, {"at a port of another", knownPort}}},
		{name: "an identifier of the configuration", change: byClientID, victim: "the shared wire, by identifier", does: ask | renew | end, ways: []way{
			{"on the same wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port that the ERP lacks", strangePort}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(v.id...))
			}},
		{name: "an identifier of the configuration, reported", change: func(o *Options) { byClientID(o); o.MACChange = v4.MACReport }, victim: "the shared wire, by identifier", does: ask | renew, ways: []way{
			{"on the same wire", onEth}, {"on the uplink", onUp}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(v.id...))
			}},
		{name: "an identifier of the configuration, for a port", change: func(o *Options) { byClientID(o); o.ClientIDs = []v4.ClientID{{Text: "olt", IP: host(12)}} }, victim: "a second port", does: ask | renew | end, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}},
			write: func(_ *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID([]byte("olt")...))
			}},
		{name: "an identifier with the MAC of a port in it", change: byClientID, victim: "a port", does: ask | renew, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(append([]byte{1}, v.mac[:]...)...))
			}},
		{name: "an identifier with the MAC of who was offered", change: byClientID, victim: "behind a relay without option 82", offered: true, does: ask, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port that the ERP lacks", strangePort}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(append([]byte{1}, v.mac[:]...)...))
			}},
		{name: "an identifier with the MAC of the shared wire in it", change: byClientID, victim: "the shared wire", does: ask | renew, ways: []way{
			{"on it", onEth}, {"on the uplink", onUp}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(append([]byte{1}, v.mac[:]...)...))
			}},
		{name: "the identifier that a port's client is known by", change: func(o *Options) { o.ClientKey = v4.ClientKeyID }, victim: "a port", does: ask | renew | end, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"from its address", asItself}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(v.id...))
			}},
		{name: "the identifier that a client of the shared wire is known by", change: func(o *Options) { o.ClientKey = v4.ClientKeyID }, victim: "the shared wire", does: ask | renew | end, ways: []way{
			{"on it", onEth}, {"on the uplink", onUp}, {"at a port that the ERP lacks", strangePort}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(v.id...))
			}},
		{name: "a renewal with another identifier", victim: "a port", does: renew, id: itsOwn, write: anotherID, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort},
			{"in a VLAN of another", ownVLAN}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "a renewal with another identifier, of a VLAN", victim: "a VLAN with the MAC", does: renew, id: itsOwn, write: anotherID, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort},
			{"in a VLAN of another", ownVLAN}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "a renewal with another identifier, of a snooped port", victim: "a snooping switch", does: renew, id: itsOwn, write: anotherID, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort},
			{"at a snooped port of another", snoopedPort}}},
		{name: "a renewal with an identifier, of a client that has none", victim: "a port", does: renew, write: anotherID, ways: []way{{"at a port that the ERP lacks", strangePort}, {"at a snooped port", snoopedPort}}},
		{name: "its address as the source, without a renewal", victim: "a port", does: ask, ways: []way{{"on the uplink", asItself}, {"on the shared wire", from{index: ifEth, src: itself}}}},
		{name: "its address as the source, without a renewal, of a vacant port", victim: "a vacant port with the MAC", does: ask, ways: []way{{"on the uplink", asItself}, {"on the shared wire", from{index: ifEth, src: itself}}}},
		{name: "its address as the source, without a renewal, of a guest", victim: "a guest of a port", does: ask, ways: []way{{"on the uplink", asItself}, {"on the shared wire", from{index: ifEth, src: itself}}}},
		{name: "a guest's address in ciaddr", victim: "a guest of a port", does: discover | rapid | reboot | selecting | renew, write: func(v *citizen, q *wire.Query) { q.CIAddr = v.addr }, ways: []way{
			{"on the shared wire", onEth}, {"on the uplink", onUp}, {"at a port that the ERP lacks", strangePort}, {"at a snooped port", snoopedPort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "a renewal where dhcp.match has no MAC", change: byLineOnly, victim: "a port", does: renew, ways: []way{
			{"on the shared wire", onEth}, {"at a port that the ERP lacks", strangePort}, {"at a snooped port", snoopedPort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "a renewal where dhcp.match has no MAC, of a VLAN", change: byLineOnly, victim: "a VLAN with the MAC", does: renew, ways: []way{
			{"on the shared wire", onEth}, {"at a port that the ERP lacks", strangePort}, {"at a snooped port", snoopedPort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "a renewal where dhcp.match has no MAC, of a snooped port", change: byLineOnly, victim: "a snooping switch", does: renew, ways: []way{
			{"on the shared wire", onEth}, {"at a port that the ERP lacks", strangePort}, {"at a snooped port", snoopedPort}, {"in a VLAN that the ERP lacks", emptyVLAN}}},
		{name: "the identifier that a client of the shared wire is known by, with its MAC in it", change: func(o *Options) { byClientID(o); o.ClientKey = v4.ClientKeyID }, victim: "the shared wire", id: ofMAC, does: ask | renew, ways: []way{
			{"on the uplink", onUp}, {"in nobody's VLAN", nobodysVLAN}, {"at a port of another", knownPort}, {"at a port that the ERP lacks", strangePort}, {"in a VLAN that the ERP lacks", emptyVLAN}},
			write: func(v *citizen, q *wire.Query) {
				q.MAC = client(0xe1)
				q.Options = append(q.Options, clientID(v.id...))
			}},
	} {
		kinds := []struct {
			does int
			name string
			q    func(v *citizen, a netip.Addr) wire.Query
		}{
			{discover, "discover", func(_ *citizen, a netip.Addr) wire.Query {
				return wire.Query{Type: wire.Discover, Options: []wire.Option{requested(a)}}
			}},
			{rapid, "rapid commit", func(_ *citizen, a netip.Addr) wire.Query {
				return wire.Query{Type: wire.Discover, Options: []wire.Option{requested(a), {Code: 80}}}
			}},
			{selecting, "selecting", func(_ *citizen, a netip.Addr) wire.Query {
				return wire.Query{Type: wire.Request, Options: []wire.Option{requested(a), chosen(serverIP)}}
			}},
			{reboot, "init-reboot", func(_ *citizen, a netip.Addr) wire.Query {
				return wire.Query{Type: wire.Request, Options: []wire.Option{requested(a)}}
			}},
			{renew, "renewal", func(_ *citizen, a netip.Addr) wire.Query { return wire.Query{Type: wire.Request, CIAddr: a} }},
			{release, "release", func(_ *citizen, a netip.Addr) wire.Query {
				return wire.Query{Type: wire.Release, CIAddr: a, Options: []wire.Option{chosen(serverIP)}}
			}},
			{decline, "decline", func(_ *citizen, a netip.Addr) wire.Query {
				return wire.Query{Type: wire.Decline, Options: []wire.Option{requested(a), chosen(serverIP)}}
			}},
		}
		for _, w := range tc.ways {
			for _, k := range kinds {
				if tc.does&k.does == 0 {
					continue
				}
				t.Run(tc.name+"/"+w.name+"/"+k.name, func(t *testing.T) {
					tn := plainTown(t, tc.change)
					v := tn.citizen(tc.victim)
					switch {
					case tc.id != nil:
						v.id = tc.id(v)
					case tn.opts.ClientKey == v4.ClientKeyID && v.id == nil:
						v.id = []byte("\x00itself")
					}
					{
						tn.now = tn.now.Add(time.Second)
						tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
						require.True(t, v.offered.IsValid(), tn.tale())
						aim := v.offered
						if !tc.offered {
							tn.take(v)
						}
						tn.now = tn.now.Add(time.Minute / 2)
						q := k.q(v, aim)
						q.MAC = v.mac
						if len(v.id) > 0 && tc.write == nil {
							q.Options = append(q.Options, clientID(v.id...))
						}
						if tc.write != nil {
							tc.write(v, &q)
						}
						a := attempt{victim: v}
						a.Ifindex, a.From = w.from.index, netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
						if w.from.src != nil {
							a.From = netip.AddrPortFrom(w.from.src(v), 68)
						}
						if w.from.line > 0 {
							at := tn.places[w.from.line-1]
							a.at, a.Ifindex, q.GIAddr, q.Option82 = &at, at.index, at.gi, at.opt82
							if at.gi.IsValid() {
								a.From = netip.AddrPortFrom(at.via, 67)
							}
						}
						if w.from.plain != nil {
							a.plain, a.Ifindex, a.From, a.To = true, ifUp, netip.AddrPortFrom(relay2, 67), serverIP
							q.GIAddr, q.Option82 = w.from.plain(v), v.at.opt82
						}
						a.Data = q.Append(nil)
						tn.disturb(a)
						tn.now = tn.now.Add(time.Second)
						if tc.offered {
							tn.ask(v, v.datagram(wire.Query{Type: wire.Request, Options: []wire.Option{requested(aim), chosen(v.by)}}, false))
						} else {
							tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: aim}, true))
						}
						require.True(t, v.astray || v.refused || v.has(tn.now), tn.tale())
						tn.now = tn.now.Add(time.Second)
						tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false)) // the router starts anew
						if v.astray && !v.offered.IsValid() {
							return // when the lease of who has its MAC is over
						}
						tn.take(v)
						if !v.posed || tn.line(v) != nil && !tn.line(v).Vacant() { // else another address of the pool will do
							require.Equal(t, aim, v.addr)
						}
					}
					tn.unharmedAll(t)
				})
			}
		}
	}
}

// take lets a citizen take what it was offered.
func (tn *town) take(c *citizen) {
	tn.t.Helper()
	require.True(tn.t, c.offered.IsValid(), tn.tale())
	tn.now = tn.now.Add(time.Second)
	tn.ask(c, c.datagram(wire.Query{Type: wire.Request, Options: []wire.Option{requested(c.offered), chosen(c.by)}}, false))
	require.True(tn.t, c.has(tn.now), tn.tale())
}

// A stranger who floods in the name of a customer of a line that is vouched for does not use up the customer's share.
func TestStrangersSpendNoLimit(t *testing.T) {
	for _, tc := range []struct {
		name, victim string
		from         func(tn *town, v *citizen, q *wire.Query) attempt
	}{
		{"the MAC of a port, on the shared wire", "a port", func(*town, *citizen, *wire.Query) attempt { return on(ifEth, netip.IPv4Unspecified()) }},
		{"the MAC of a port, at another", "a port", func(tn *town, _ *citizen, q *wire.Query) attempt { return tn.lineOf(0, q) }},
		{"the MAC of a VLAN, in another", "a VLAN with the MAC", func(tn *town, _ *citizen, q *wire.Query) attempt { return tn.lineOf(3, q) }},
		{"the MAC of a VLAN, on the shared wire", "a VLAN with the MAC", func(*town, *citizen, *wire.Query) attempt { return on(ifEth, netip.IPv4Unspecified()) }},
		{"a relay's address, from a host that is not listed", "a port", func(_ *town, v *citizen, q *wire.Query) attempt {
			q.GIAddr, q.Option82 = v.at.gi, v.at.opt82
			return on(ifUp, ip("203.0.113.66"))
		}},
		{"a relay's address, on the shared wire", "a port", func(_ *town, v *citizen, q *wire.Query) attempt {
			q.GIAddr, q.Option82 = v.at.gi, v.at.opt82
			return on(ifEth, v.at.via)
		}},
		{"option 82 of a snooped port, on the shared wire", "a snooping switch", func(_ *town, v *citizen, q *wire.Query) attempt {
			q.Option82 = v.at.opt82
			return on(ifEth, netip.IPv4Unspecified())
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tn := plainTown(t, func(o *Options) { o.Limits = tightLimits() })
			{
				v := tn.citizen(tc.victim)
				tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
				tn.take(v)
				for range 3 {
					tn.now = tn.now.Add(time.Minute)
					for i := range 200 {
						q := wire.Query{XID: uint32(i), Type: wire.Discover, MAC: v.mac}
						a := tc.from(tn, v, &q)
						a.victim, a.Data = v, q.Append(nil)
						tn.now = tn.now.Add(time.Second / 200)
						tn.loud.hear(tn.now, a.Datagram)
					}
					tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: v.addr}, false))
					require.Equal(t, wire.Ack, tn.loud.h.d.Reply.Type, tn.tale())
					tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: v.addr}, true))
					require.True(t, v.has(tn.now), tn.tale())
				}
			}
			tn.unharmedAll(t)
		})
	}
}

// on is an attempt from an interface and an address.
func on(index int, src netip.Addr) (a attempt) {
	a.Ifindex, a.From = index, netip.AddrPortFrom(src, 68)
	return a
}

// lineOf is an attempt from a line of a stranger.
func (tn *town) lineOf(i int, q *wire.Query) (a attempt) {
	at := tn.places[i]
	a.at, a.Ifindex, q.GIAddr, q.Option82 = &at, at.index, at.gi, at.opt82
	a.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
	if at.gi.IsValid() {
		a.From = netip.AddrPortFrom(at.via, 67)
	}
	return a
}

// renewal is what a stranger writes who has a customer's MAC, or identifier.
func (v *citizen) renewal(mac provision.MAC) wire.Query {
	q := wire.Query{Type: wire.Request, MAC: mac, CIAddr: v.addr}
	if len(v.id) > 0 {
		q.Options = append(q.Options, clientID(v.id...))
	}
	return q
}

// An address that the ERP has no more goes on for a moment only where its client is.
func TestStrangersShortenNoLease(t *testing.T) {
	for _, line := range []int{0, 2} {
		tn := plainTown(t, func(o *Options) { o.BindingChange = v4.BindingShorten })
		v := tn.citizen("a port")
		tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
		tn.take(v)
		tn.line(v).Addresses = nil
		tn.publish()
		tn.now = tn.now.Add(time.Minute)
		q := v.renewal(v.mac)
		a := tn.lineOf(line, &q)
		a.victim, a.Data = v, q.Append(nil)
		tn.disturb(a)
		tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: v.addr}, true))
		require.Equal(t, outcome.AckShortened, tn.loud.h.d.Outcome, tn.tale())
		tn.unharmedAll(t)
	}
}

// Who writes the sender's address of a client that renews past its relay ends no lease by it: whom the ERP gives the address waits until the
// client was refused through its relay.
func TestStrangersPastTheRelayEndNoLease(t *testing.T) {
	for _, bound := range []bool{false, true} {
		tn := plainTown(t, func(o *Options) { o.BindingChange, o.Pools = v4.BindingShorten, nil })
		v, next := tn.citizen("a port"), tn.citizen("a second port")
		tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
		tn.take(v)
		aim := v.addr
		tn.line(v).Addresses = nil
		if bound {
			tn.line(next).Addresses = provision.Hosts4(aim)
		}
		tn.now = tn.now.Add(5 * time.Minute)
		tn.publish()
		q := v.renewal(v.mac)
		a := on(ifEth, aim)
		a.victim, a.Data, a.To = v, q.Append(nil), serverIP // a broadcast tells that it is from another wire
		tn.disturb(a)
		require.Equal(t, outcome.AckShortened, tn.loud.h.d.Outcome, tn.tale())
		tn.now = tn.now.Add(2 * time.Minute)
		rec, _ := tn.loud.h.s.deps.Leases.Get(aim)
		require.True(t, rec.Live(tn.now), "the client has heard nothing")
		if bound {
			tn.ask(next, next.datagram(wire.Query{Type: wire.Discover}, false))
			require.Equal(t, outcome.HolderLive, tn.loud.h.d.Outcome, tn.tale())
		}
		tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: aim}, true)) // T1
		require.Equal(t, outcome.AckShortened, tn.loud.h.d.Outcome, tn.tale())
		tn.now = tn.now.Add(52 * time.Second)
		tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: aim}, false)) // T2
		require.Equal(t, wire.Nak, tn.loud.h.d.Reply.Type, tn.tale())
		if bound {
			tn.ask(next, next.datagram(wire.Query{Type: wire.Discover}, false))
			tn.take(next)
			require.Equal(t, aim, next.addr, tn.tale())
		}
		tn.unharmedAll(t)
	}
}

// On a wire without lines a neighbour with the client's MAC ends its lease once the ERP has taken the address, and not before.
func TestStrangersOnAWireEndWhatTheERPTook(t *testing.T) {
	for name, src := range map[string]netip.Addr{"as a client asks": netip.IPv4Unspecified(), "from anywhere": ip("203.0.113.66")} {
		t.Run(name, func(t *testing.T) {
			tn := plainTown(t, nil)
			v := tn.citizen("the shared wire")
			tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
			tn.take(v)
			aim := v.addr
			for _, taken := range []bool{false, true} {
				tn.now = tn.now.Add(time.Minute)
				if taken {
					tn.line(v).Addresses = nil
					tn.publish()
				}
				q := wire.Query{Type: wire.Request, MAC: v.mac, Options: []wire.Option{requested(aim), chosen(serverIP)}}
				a := on(ifEth, src)
				a.victim, a.Data = v, q.Append(nil)
				tn.disturb(a)
				rec, _ := tn.loud.h.s.deps.Leases.Get(aim)
				require.NotEqual(t, taken, rec.Live(tn.now), tn.tale())
			}
			tn.unharmedAll(t)
		})
	}
}

// The MAC that the ERP's operator wrote for a customer's port takes nothing from the router there before it appears there.
func TestStrangersTakeNoLeaseByTheNewMAC(t *testing.T) {
	for name, where := range map[string]func(tn *town, q *wire.Query) attempt{
		"in a VLAN that the ERP lacks": func(tn *town, q *wire.Query) attempt { return tn.lineOf(3, q) },
		"at a port that the ERP lacks": func(tn *town, q *wire.Query) attempt { return tn.lineOf(1, q) },
		"on the shared wire":           func(*town, *wire.Query) attempt { return on(ifEth, netip.IPv4Unspecified()) },
	} {
		for _, victim := range []string{"a port", "a snooping switch", "a VLAN with the MAC"} {
			t.Run(victim+"/"+name, func(t *testing.T) {
				tn := plainTown(t, func(o *Options) {
					o.Match = []v4.MatchKind{v4.MatchOption82 + v4.MatchMAC, v4.MatchVLAN + v4.MatchMAC, v4.MatchMAC}
				})
				v := tn.citizen(victim)
				tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
				tn.take(v)
				aim := v.addr
				tn.now = tn.now.Add(time.Minute)
				tn.line(v).MAC = client(0xa0)
				tn.publish()
				q := wire.Query{Type: wire.Discover, MAC: client(0xa0), Options: []wire.Option{requested(aim), {Code: 80}}}
				a := where(tn, &q)
				a.victim, a.Data = v, q.Append(nil)
				tn.disturb(a)
				tn.unharmedAll(t)
				v.mac, v.until = client(0xa0), time.Time{} // the new router
				tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
				tn.take(v)
				require.Equal(t, aim, v.addr, tn.tale())
				tn.unharmedAll(t)
			})
		}
	}
}

// Which address of this host a stranger sends to does not say on which wire it is.
func TestStrangersReportNoMACFromAnotherWire(t *testing.T) {
	tn := plainTown(t, func(o *Options) { o.ClientKey = v4.ClientKeyID })
	v := tn.citizen("a VLAN")
	v.id = []byte("\x00itself")
	tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
	tn.take(v)
	require.NotEmpty(t, tn.news, "the ERP has no MAC")
	tn.now = tn.now.Add(24 * time.Hour)
	q := v.renewal(client(0xe1))
	a := on(ifEth, v.addr)
	a.victim, a.To, a.Data = v, serverIP, q.Append(nil)
	tn.disturb(a)
	require.Equal(t, outcome.Ack, tn.loud.h.d.Outcome, tn.tale())
	tn.unharmedAll(t)
}

// Who writes a client's identifier and address past the relay brings no MAC into the lease record, and so none into the ERP, however often it renews.
func TestStrangersReportNoMACPastTheRelay(t *testing.T) {
	tn := plainTown(t, func(o *Options) { o.ClientKey = v4.ClientKeyID })
	v := tn.citizen("a port")
	v.id = []byte("\x00itself")
	tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
	tn.take(v)
	for range 3 {
		tn.now = tn.now.Add(time.Minute)
		q := v.renewal(client(0xe1))
		a := on(ifEth, v.addr)
		a.victim, a.To, a.Data = v, serverIP, q.Append(nil)
		tn.disturb(a)
		require.Equal(t, outcome.Ack, tn.loud.h.d.Outcome, tn.tale())
		require.Empty(t, tn.loud.reports, tn.tale())
		rec, _ := tn.loud.h.s.deps.Leases.Get(v.addr)
		require.Equal(t, v.mac, rec.MAC, tn.tale())
		require.Equal(t, tn.now, rec.Renewed, tn.tale())
	}
	tn.unharmedAll(t)
}

// What an identifier leads to at a line that the ERP lacks is no reason to tell the ERP of the MAC there, however often it is asked for.
func TestStrangersReportNoMACOfAnotherLine(t *testing.T) {
	for where, place := range map[string]int{"at a port that the ERP lacks": 1, "in a VLAN that the ERP lacks": 3} {
		for id, victim := range map[string]string{"cpe": "the shared wire, by identifier", "olt": "a second port"} {
			t.Run(victim+"/"+where, func(t *testing.T) {
				tn := plainTown(t, func(o *Options) {
					o.Match = []v4.MatchKind{v4.MatchOption82, v4.MatchVLAN, v4.MatchClientID, v4.MatchMAC}
					o.ClientIDs = []v4.ClientID{{Text: "cpe", IP: shared(14)}, {Text: "olt", IP: host(12)}}
				})
				v := tn.citizen(victim)
				tn.line(v).MAC = v.mac
				tn.publish()
				aim := tn.line(v).Addresses[0].Prefix.Addr()
				selecting := []wire.Option{requested(aim), chosen(serverIP)}
				for _, q := range []wire.Query{{Options: selecting}, {Options: selecting}, {CIAddr: aim}, {Options: []wire.Option{requested(aim)}}} {
					q.Type, q.MAC = wire.Request, client(0xe1)
					q.Options = append(slices.Clone(q.Options), clientID([]byte(id)...))
					a := tn.lineOf(place, &q)
					a.victim, a.Data = v, q.Append(nil)
					tn.now = tn.now.Add(time.Minute)
					tn.disturb(a)
					require.Equal(t, outcome.Ack, tn.loud.h.d.Outcome, tn.tale())
				}
				tn.unharmedAll(t)
			})
		}
	}
}

// Who takes the addresses of a port by the MACs of its devices, while they are off, keeps nobody at the port itself from them, a new router neither, and
// does not count for max_macs_per_port.
func TestStrangersFillNoPort(t *testing.T) {
	for _, most := range []int{0, 1} {
		t.Run(fmt.Sprintf("max_macs_per_port %d", most), func(t *testing.T) {
			tn := plainTown(t, func(o *Options) { o.MaxPortMACs = most })
			v, other := tn.citizen("one of two addresses of a port"), tn.citizen("the other of two")
			tn.line(other).MAC = other.mac
			tn.publish()
			for _, mac := range []provision.MAC{v.mac, other.mac}[most:] {
				q := wire.Query{Type: wire.Discover, MAC: mac, Options: []wire.Option{{Code: wire.OptRapidCommit}}}
				a := tn.lineOf(1, &q)
				a.victim, a.Data = v, q.Append(nil)
				tn.disturb(a)
				require.Equal(t, outcome.Ack, tn.loud.h.d.Outcome, tn.tale())
			}
			v.mac = client(0xa9) // a new router
			tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
			tn.take(v)
			tn.now = tn.now.Add(time.Minute)
			tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: v.addr}, true))
			require.True(t, v.has(tn.now), tn.tale())
			tn.unharmedAll(t)
		})
	}
}

// A customer who takes an address of a pool after all is where it takes it, not where a stranger had it.
func TestStrangersLeaveNoPlace(t *testing.T) {
	tn := plainTown(t, func(o *Options) {
		o.Match = []v4.MatchKind{v4.MatchOption82 + v4.MatchMAC, v4.MatchVLAN + v4.MatchMAC, v4.MatchMAC}
	})
	v := tn.citizen("a vacant VLAN")
	tn.line(v).MAC = v.mac
	tn.publish()
	tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
	q := wire.Query{Type: wire.Discover, MAC: v.mac, Options: []wire.Option{requested(v.offered), {Code: 80}}}
	a := tn.lineOf(1, &q)
	a.victim, a.Data = v, q.Append(nil)
	tn.disturb(a)
	require.Equal(t, outcome.PoolAck, tn.loud.h.d.Outcome, tn.tale())
	tn.take(v)
	rec, _ := tn.loud.h.s.deps.Leases.Get(v.addr)
	require.Equal(t, "vlan102", rec.Interface)
	require.Empty(t, rec.Option82)
	q = wire.Query{Type: wire.Release, MAC: v.mac, CIAddr: v.addr, Options: []wire.Option{chosen(serverIP)}}
	a = tn.lineOf(1, &q)
	a.victim, a.Data = v, q.Append(nil)
	tn.disturb(a)
	tn.unharmedAll(t)
}

// A stranger with a customer's, or a guest's, MAC at a port of its own brings that MAC into the ERP for the port: whoever has it keeps what it has, be the
// stranger there, gone, or there with another MAC by then.
func TestStrangersReportCostsNobodyTheAddress(t *testing.T) {
	for victim, low := range map[string]netip.Addr{
		"the shared wire": shared(2), "behind a relay without option 82": host(2), "vacant, by MAC": shared(2), "a guest of a port": host(2), "a guest of the shared wire": shared(2),
	} {
		for _, after := range []string{"is there", "is gone", "is there with its own MAC", "was there with its own MAC"} {
			t.Run(victim+"/the stranger "+after, func(t *testing.T) {
				tn := plainTown(t, nil)
				row := &tn.in.Lines[slices.IndexFunc(tn.in.Lines, func(l provision.Line) bool { return l.Subscriber == 91 })]
				row.Addresses = provision.Hosts4(low) // the first of equal ones
				tn.publish()
				v := tn.citizen(victim)
				tn.ask(v, v.datagram(wire.Query{Type: wire.Discover}, false))
				tn.take(v)
				aim := v.addr
				takes := func(mac provision.MAC) {
					for _, q := range []wire.Query{{Type: wire.Discover}, {Type: wire.Request, Options: []wire.Option{requested(low), chosen(serverIP)}}} {
						q.MAC = mac
						a := tn.lineOf(0, &q)
						a.victim, a.Data = v, q.Append(nil)
						tn.disturb(a)
					}
					require.Equal(t, low, tn.loud.h.d.YourIP, tn.tale())
					require.Equal(t, outcome.Ack, tn.loud.h.d.Outcome, tn.tale())
				}
				takes(v.mac)
				require.Equal(t, []provision.MAC{v.mac}, []provision.MAC{tn.loud.reports[0].MAC})
				row.MAC = v.mac // as if the outbox had taken it for nobody's
				for _, o := range tn.offices() {
					o.h.s.deps.Leases.Taken(low, v.mac, provision.SourceDirect, tn.now)
				}
				tn.publish()
				if after != "is there" {
					for range 8 { // the customer goes on meanwhile
						tn.now = tn.now.Add(8 * time.Minute)
						tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: aim}, true))
						require.True(t, v.has(tn.now), tn.tale())
					}
				}
				if strings.HasSuffix(after, "its own MAC") {
					takes(client(0x91))
				}
				if strings.HasPrefix(after, "was") {
					for range 8 {
						tn.now = tn.now.Add(8 * time.Minute)
						tn.ask(v, v.datagram(wire.Query{Type: wire.Request, CIAddr: aim}, true))
						require.True(t, v.has(tn.now), tn.tale())
					}
				}
				for _, q := range []wire.Query{{Type: wire.Discover}, {Type: wire.Request, Options: []wire.Option{requested(aim)}}, {Type: wire.Request, CIAddr: aim}} {
					tn.now = tn.now.Add(time.Second)
					tn.ask(v, v.datagram(q, false))
					if q.Type == wire.Discover {
						tn.take(v)
					}
					require.True(t, v.has(tn.now), tn.tale())
					require.Equal(t, aim, v.addr, tn.tale())
				}
				tn.unharmedAll(t)
			})
		}
	}
}
