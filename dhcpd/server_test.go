package dhcpd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// storeJournal stores leases as the agent does, and remembers the reports.
type storeJournal struct {
	lease.Journal
	store   lease.Store
	reports []provision.MACReport // read after the server has ended
	busy    sync.Mutex            // held by a test in which the disk takes its time
}

// Commit implements Journal.
func (j *storeJournal) Commit(recs []lease.Commit) error {
	j.busy.Lock()
	defer j.busy.Unlock()
	return j.Journal.Commit(recs)
}

// openJournal opens the store whose file is path.
func openJournal(t testing.TB, path string) *storeJournal {
	t.Helper()
	store, err := lease.OpenStore(t.Context(), filepath.Dir(path), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	tab, err := lease.Open(store)
	require.NoError(t, err)
	j := &storeJournal{store: store}
	j.Journal = lease.Journal{Table: tab, Reports: j}
	return j
}

// Add implements lease.Queue.
func (j *storeJournal) Add(b *lease.Batch, r provision.MACReport) error {
	b.OnCommit(func() { j.reports = append(j.reports, r) })
	return nil
}

// Keep implements lease.Queue.
func (j *storeJournal) Keep(provision.MACReport) {}

// site is a running server on loopback with a relay at 127.0.0.2, so nothing
// needs a right. Nothing is ever sent to the customers' own addresses.
type site struct {
	t         testing.TB
	relayPort uint16
	server    *Server
	events    *EventLog
	journal   *storeJournal
	addr      netip.AddrPort
	stop      func() error
}

var (
	subscriberIP = host(21)
	loopRelay    = ip("127.0.0.2")
)

func loopbackOptions(relayPort, clientPort uint16) Options {
	return Options{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Options: v4.Options{
		RelayPort: relayPort, ClientPort: clientPort, Authoritative: true,
		Options: line.Options{Relays: []netip.Prefix{netip.PrefixFrom(loopRelay, 32)}, Option82Relays: []string{line.EveryRelay}},
		Subnets: []v4.Subnet{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: host(1), LeaseTime: time.Hour}},
	}}
}

func startSite(t *testing.T, path string, opts Options) *site {
	t.Helper()
	return startSiteWith(t, path, opts, siteInput(), (*Server).Listen)
}

func siteInput() provision.Input {
	return provision.Input{
		Devices: []provision.Device{{ID: 1, MAC: switch1, IP: loopRelay}},
		Lines:   []provision.Line{{Subscriber: 2, Addresses: provision.Hosts4(subscriberIP), Device: 1, Port: 2, PortName: "eth2"}},
	}
}

// startSiteWith lets the caller choose what the ERP says and where the sockets are opened.
func startSiteWith(t *testing.T, path string, opts Options, in provision.Input, listen func(*Server) error) *site {
	t.Helper()
	return startSiteLinks(t, path, opts, in, nil, listen)
}

func startSiteLinks(t testing.TB, path string, opts Options, in provision.Input, links Links, listen func(*Server) error) *site {
	t.Helper()
	snap, _ := provision.Build(in)
	s := &site{t: t, relayPort: opts.RelayPort, events: NewEventLog(0), journal: openJournal(t, path)}
	tab := s.journal.Table
	var err error
	s.server, err = New(opts, Deps{
		Snapshot: func() *provision.Snapshot { return snap }, Leases: tab, Journal: s.journal, Observer: s.events, Links: links,
	})
	require.NoError(t, err)
	require.NoError(t, listen(s.server))
	s.addr = s.server.LocalAddr()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.server.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return errors.Join(err, tab.Flush(), s.journal.store.Close())
		case <-time.After(5 * time.Second):
			return errors.New("the server does not stop")
		}
	})
	t.Cleanup(func() { assert.NoError(t, s.stop()) })
	return s
}

// listenUDP opens a loopback socket for a relay or a client; port 0 is any.
func listenUDP(t testing.TB, a netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func portOf(c *net.UDPConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// exchange sends p and gives the answer to it.
func (s *site) exchange(c *net.UDPConn, p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	s.t.Helper()
	_, err := c.WriteToUDPAddrPort(p.ToBytes(), s.addr)
	require.NoError(s.t, err)
	require.NoError(s.t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 2048)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	require.NoError(s.t, err, "no answer to %s; events: %+v", p.MessageType(), s.events.Find(EventFilter{}))
	assert.Equal(s.t, s.addr, from)
	reply, err := dhcpv4.FromBytes(buf[:n])
	require.NoError(s.t, err)
	require.Equal(s.t, p.TransactionID, reply.TransactionID)
	return reply
}

func packet(t *testing.T, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr(stranger[:]))}, mods...)...)
	require.NoError(t, err)
	return p
}

func relayed(opt82 []byte) dhcpv4.Modifier {
	return func(p *dhcpv4.DHCPv4) {
		p.GatewayIPAddr = loopRelay.AsSlice()
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, opt82))
	}
}

func TestServerEndToEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	s := startSite(t, path, opts)
	opt82 := port(switch1, 2)

	offer := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed(opt82)))
	assert.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
	assert.Equal(t, subscriberIP.String(), offer.YourIPAddr.String())
	assert.Equal(t, "127.0.0.1", offer.ServerIdentifier().String())
	assert.Equal(t, opt82, offer.Options.Get(dhcpv4.OptionRelayAgentInformation))
	assert.Equal(t, time.Hour, offer.IPAddressLeaseTime(0))
	assert.Equal(t, "192.0.2.1", offer.Router()[0].String())

	ack := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), relayed(opt82),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))))
	assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())

	// The name that a relay on the switch itself gives, found by giaddr.
	nak := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), relayed(named("eth2")),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 0, 2, 99)))))
	assert.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType())
	assert.True(t, nak.IsBroadcast())
	assert.Equal(t, named("eth2"), nak.Options.Get(dhcpv4.OptionRelayAgentInformation))

	// Stop, start: the lease record answers a rebinding from a port that the ERP does not have.
	require.NoError(t, s.stop())
	require.Len(t, s.journal.reports, 1)
	assert.Equal(t, stranger, s.journal.reports[0].MAC)
	s = startSite(t, path, opts)
	elsewhere := port(switch1, 9)
	renewed := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), relayed(elsewhere), dhcpv4.WithClientIP(subscriberIP.AsSlice())))
	assert.Equal(t, dhcpv4.MessageTypeAck, renewed.MessageType())
	assert.Equal(t, subscriberIP.String(), renewed.YourIPAddr.String())
	assert.Equal(t, subscriberIP.String(), renewed.ClientIPAddr.String())

	inform := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), relayed(elsewhere), dhcpv4.WithClientIP(subscriberIP.AsSlice())))
	assert.Equal(t, dhcpv4.MessageTypeAck, inform.MessageType())
	assert.Zero(t, inform.IPAddressLeaseTime(0))
	require.NoError(t, s.stop())
	events := s.events.Find(EventFilter{MAC: stranger})
	require.Len(t, events, 2)
	assert.Equal(t, outcome.InformAck, events[0].Outcome)
	assert.Equal(t, "lo", events[0].Interface)
	assert.EqualValues(t, 2, events[1].Subscriber)
}

// Noise from the network never ends the server and each packet is told.
func TestServerSurvivesNoise(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), loopbackOptions(portOf(relay), 68))
	big := make([]byte, 6000)
	copy(big, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed(port(switch1, 2))).ToBytes())
	discover := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed(port(switch1, 2))).ToBytes()
	untrusted := append([]byte(nil), discover...)
	copy(untrusted[24:], []byte{127, 0, 0, 3})
	reply := append([]byte(nil), discover...)
	reply[0] = 2
	forged := append(append(append([]byte(nil), discover[:240]...), 82, 8, 1, 6, 'S', 'P', 'O', 'O', 'F', '!'), discover[240:]...)
	broken := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed([]byte{1, 6, 0})).ToBytes()
	want := map[outcome.Outcome]int{
		outcome.Malformed: 4, outcome.RelayUntrusted: 1, outcome.NotRequest: 1, outcome.Option82Double: 1,
		outcome.Option82Malformed: 1, outcome.Offer: 1,
	}
	for _, b := range [][]byte{{}, []byte("hello"), discover[:245], big, untrusted, reply, forged, broken} {
		_, err := relay.WriteToUDPAddrPort(b, s.addr)
		require.NoError(t, err)
	}
	offer := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed(port(switch1, 2))))
	assert.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
	require.NoError(t, s.stop())
	got := map[outcome.Outcome]int{}
	for _, e := range s.events.Find(EventFilter{}) {
		got[e.Outcome]++
	}
	assert.Equal(t, want, got)
}

// Without a relay the asker is answered at its own address in loopback mode.
func TestServerLoopbackModeAnswersByUDP(t *testing.T) {
	cpe := listenUDP(t, ip("127.0.0.9"), 0)
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), loopbackOptions(67, portOf(cpe)))
	opt82 := dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2))
	offer := s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), opt82))
	assert.Equal(t, subscriberIP.String(), offer.YourIPAddr.String())
	offer = s.exchange(cpe, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true), opt82))
	assert.Equal(t, subscriberIP.String(), offer.YourIPAddr.String())
	require.NoError(t, s.stop())
}

func TestListenSaysWhoHasThePort(t *testing.T) {
	other := listenUDP(t, ip("127.0.0.1"), 0)
	opts := loopbackOptions(67, 68)
	opts.Listen = netip.AddrPortFrom(ip("127.0.0.1"), portOf(other))
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	err = s.Listen()
	assert.ErrorContains(t, err, fmt.Sprintf("is in use by dhcpd.test (pid %d) at %v; stop it", os.Getpid(), other.LocalAddr()))
	assert.ErrorContains(t, err, "dhcp.listen")
	assert.False(t, s.LocalAddr().IsValid())
	assert.Error(t, s.Run(t.Context()), "run before listen")
}

func TestListenSaysMissingRightAndAddress(t *testing.T) {
	opts := loopbackOptions(67, 68)
	opts.Listen = netip.MustParseAddrPort("192.0.2.200:6767")
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	assert.ErrorContains(t, s.Listen(), "no interface has the address 192.0.2.200")
	if os.Geteuid() == 0 {
		return // root may
	}
	opts.Listen = netip.MustParseAddrPort("127.0.0.1:67")
	s, err = New(opts, Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	assert.ErrorContains(t, s.Listen(), "CAP_NET_BIND_SERVICE")
}

func TestReload(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), opts)
	opts.Subnets[0].LeaseTime = 2 * time.Hour
	require.NoError(t, s.server.Reload(opts))
	discover := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed(port(switch1, 2)))
	assert.Equal(t, 2*time.Hour, s.exchange(relay, discover).IPAddressLeaseTime(0))

	bad := opts
	bad.Match = []v4.MatchKind{77}
	assert.ErrorContains(t, s.server.Reload(bad), "match 77")
	moved := opts
	moved.Listen = netip.MustParseAddrPort("127.0.0.1:6767")
	assert.ErrorContains(t, s.server.Reload(moved), "cannot change from 127.0.0.1:0 to 127.0.0.1:6767 while running")
	assert.Equal(t, 2*time.Hour, s.exchange(relay, discover).IPAddressLeaseTime(0), "a refused reload changes nothing")
	require.NoError(t, s.stop())
}

// Explain says what the wire then shows, for it is the same decision.
func TestExplain(t *testing.T) {
	snap := world(t)
	rec := bound(host(11), client(0x11), 1)
	s, err := New(testOptions(), Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: leases(rec)})
	require.NoError(t, err)

	e := s.Explain(Query{MAC: stranger, Option82: port(switch1, 1), GIAddr: relayIP})
	assert.Equal(t, Explanation{
		Outcome: outcome.Offer, Text: outcome.Offer.Explain(), VouchedBy: v4.VoucherRelay, MatchedBy: "option82", Rule: 1, Since: rec.Start,
		Circuit: "vlan 100 unit 0 port 1", Remote: "mac 00:00:5e:00:53:f1", Profile: "dlink",
		YourIP: host(11), Subscriber: 1, Device: 1, Port: 1, Via: "relay", Swap: true, Lease: &rec,
	}, e)
	e = s.Explain(Query{MAC: client(0x81)})
	assert.Equal(t, Explanation{Outcome: outcome.Offer, Text: outcome.Offer.Explain(), MatchedBy: "mac", Rule: 1, YourIP: host(81), Subscriber: 8, Via: "frame"}, e)
	assert.Equal(t, outcome.Offer, s.Explain(Query{Option82: port(switch1, 2)}).Outcome, "a port without a MAC can be asked about")
	assert.Equal(t, outcome.UnknownPort, s.Explain(Query{Option82: port(switch1, 9)}).Outcome)
	assert.Equal(t, outcome.UnknownClient, s.Explain(Query{MAC: stranger}).Outcome)
	assert.Equal(t, outcome.RelayUntrusted, s.Explain(Query{MAC: stranger, GIAddr: host(9)}).Outcome)
	assert.Equal(t, outcome.InterfaceOff, s.Explain(Query{MAC: stranger, Interface: "lo"}).Outcome)
	bad, _ := hex.DecodeString("01060004006900")
	e = s.Explain(Query{MAC: stranger, Option82: bad})
	assert.Equal(t, outcome.Option82Malformed, e.Outcome)
	assert.Empty(t, e.Circuit)
	e = s.Explain(Query{MAC: stranger, Option82: named("ge-0/0/5", []byte("some-switch")...)})
	assert.Equal(t, `text "ge-0/0/5"`, e.Circuit)
	assert.Equal(t, `text "some-switch"`, e.Remote)
	assert.Equal(t, outcome.Option82Unread, e.Outcome)
	assert.Equal(t, "none", e.Via)
	assert.Equal(t, "dlink", e.Profile)
	assert.Equal(t, option82.FaultSwitch.String(), e.Fault)
	e = s.Explain(Query{MAC: stranger, Option82: port(switch1, 1)[:8]})
	assert.Contains(t, e.Fault, "nothing names the switch")
}

// brokenSource fails every read, as a socket does while memory is short.
type brokenSource struct{ reads atomic.Int32 }

func (b *brokenSource) Packet(int) socket.Datagram { panic("nothing was read") }
func (b *brokenSource) Read() (int, error) {
	b.reads.Add(1)
	return 0, syscall.ENOMEM
}

func TestReadErrorsNeverEndTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(testOptions(), Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
		require.NoError(t, err)
		broken := &brokenSource{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.receive(ctx, broken, nil)
		}()
		time.Sleep(time.Minute)
		n := broken.reads.Load()
		assert.Greater(t, n, int32(50), "it goes on reading")
		assert.Less(t, n, int32(80), "but takes its time")
		cancel()
		<-done
	})
}

func TestNewRefuses(t *testing.T) {
	_, err := New(testOptions(), Deps{})
	assert.ErrorContains(t, err, "snapshot and lease table are required")
	_, err = New(Options{}, Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	assert.ErrorContains(t, err, "dhcp: listen")
}
