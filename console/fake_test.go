package console

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
)

// What the agent passes for the interfaces.
var (
	_ Syncer       = (*syncer.Syncer)(nil)
	_ Enforcer     = (*access.Enforcer)(nil)
	_ DHCP         = (*dhcpd.Server)(nil)
	_ Leases       = (*lease.Table)(nil)
	_ Outbox       = (*outbox.Outbox)(nil)
	_ StateChanger = (*erp.Fetcher)(nil)
)

// The world of the tests: one switch, customers 1001 (active), 1002 (paused),
// 1003 (stopped) and 1004 (no state list has it).

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(t testing.TB, s string) provision.MAC {
	t.Helper()
	m, err := provision.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testSnapshot(t testing.TB) (*provision.Snapshot, []provision.Problem) {
	t.Helper()
	return provision.Build(provision.Input{
		Lines: []provision.Line{
			{Subscriber: 1001, Addresses: provision.Hosts4(ip("198.51.100.11")), MAC: mac(t, "00:00:5e:00:53:11"), Device: 7, Port: 1, PortName: "ge-0/0/1", VLAN: 100},
			{Subscriber: 1001, Addresses: provision.Hosts4(ip("198.51.100.21")), Device: 7, Port: 1},
			{Subscriber: 1002, Addresses: provision.Hosts4(ip("198.51.100.12")), MAC: mac(t, "00:00:5e:00:53:12"), Device: 7, Port: 2},
			{Subscriber: 1003, Addresses: provision.Hosts4(ip("198.51.100.13")), Device: 7, Port: 3},
			{Subscriber: 1004, Addresses: provision.Hosts4(ip("198.51.100.14"))},
		},
		Subscribers: []provision.Subscriber{
			{ID: 1001, State: provision.StateActive}, {ID: 1002, State: provision.StatePause}, {ID: 1003, State: provision.StateStop},
			{ID: 1005, State: provision.StateActive},
		},
		Devices:   []provision.Device{{ID: 7, Name: "sw-west-1", MAC: mac(t, "00:00:5e:00:53:70"), IP: ip("192.0.2.70")}},
		Source:    provision.SourceDirect,
		FetchedAt: testStart.Add(time.Minute),
	})
}

type fakeSyncer struct {
	mu        sync.Mutex
	snapshot  *provision.Snapshot
	status    syncer.Status
	guard     syncer.GuardStatus
	overrides []provision.State
	hints     []provision.SubscriberID
	decided   []string

	heldOwners map[netip.Addr]provision.SubscriberID
}

func (f *fakeSyncer) Current() *provision.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot
}

func (f *fakeSyncer) Status() syncer.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.status
	st.Source, st.Counts, st.FetchedAt = f.snapshot.Source(), f.snapshot.Counts(), f.snapshot.FetchedAt()
	st.Held = f.guard.Held
	return st
}

func (f *fakeSyncer) GuardStatus() syncer.GuardStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.guard
}

func (f *fakeSyncer) HeldChanges(id provision.SubscriberID) []syncer.HeldChange {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []syncer.HeldChange
	for _, c := range f.guard.Changes {
		if c.Subscriber == id {
			out = append(out, c)
		}
	}
	return out
}

func (f *fakeSyncer) HeldOwner(ip netip.Addr) provision.SubscriberID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heldOwners[ip]
}

func (f *fakeSyncer) decide(what, fingerprint string) (*syncer.HeldStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := f.guard.Held
	switch {
	case held == nil:
		return nil, syncer.ErrNothingHeld
	case fingerprint != "" && fingerprint != held.Fingerprint:
		return held, &syncer.OtherHeldError{Fingerprint: held.Fingerprint}
	}
	f.guard.Held = nil
	f.decided = append(f.decided, what)
	return held, nil
}

func (f *fakeSyncer) Accept(fingerprint string) (*syncer.HeldStatus, error) {
	return f.decide("accept", fingerprint)
}

func (f *fakeSyncer) AcceptSource(name syncer.SourceName, fingerprint string) (syncer.SourceStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, st := range f.status.Sources {
		if st.Source == name && st.Judgement == syncer.JudgedHeld {
			if fingerprint != "" && fingerprint != st.Fingerprint {
				return st, &syncer.OtherHeldError{Fingerprint: st.Fingerprint}
			}
			f.decided = append(f.decided, "accept "+string(name))
			return st, nil
		}
	}
	return syncer.SourceStatus{}, syncer.ErrSourceNotHeld
}

func (f *fakeSyncer) Reject(fingerprint string) (*syncer.HeldStatus, error) {
	return f.decide("reject", fingerprint)
}

func (f *fakeSyncer) Hint(id provision.SubscriberID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hints = append(f.hints, id)
}

func (f *fakeSyncer) Override(id provision.SubscriberID, st provision.State, _ time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.overrides = append(f.overrides, st)
	f.snapshot = f.snapshot.WithStates(map[provision.SubscriberID]provision.State{id: st})
}

type fakeEnforcer struct {
	status access.Status
	err    error
	synced int
}

func (f *fakeEnforcer) Status() access.Status { return f.status }

func (f *fakeEnforcer) Sync(ctx context.Context) error {
	f.synced++
	return cmp.Or(f.err, ctx.Err())
}

type fakeKernel map[netip.Addr]string

func (f fakeKernel) Holds(_ context.Context, a netip.Addr) (stopped, paused bool, err error) {
	return f[a] == "stopped", f[a] == "paused", nil
}

type fakeDHCP struct {
	addr    netip.AddrPort
	answer  dhcpd.Explanation
	sockets dhcpd.SocketStatus
	queries []dhcpd.Query

	profiles []option82.Profile
	senders  senders.Status
}

func (f *fakeDHCP) Option82Profiles() []option82.Profile { return f.profiles }

func (f *fakeDHCP) Spares(rec *lease.Record) bool { return len(rec.Option82) > 0 }

func (f *fakeDHCP) Senders() senders.Status { return f.senders }

func (f *fakeDHCP) LocalAddr() netip.AddrPort { return f.addr }

func (f *fakeDHCP) Sockets() dhcpd.SocketStatus { return f.sockets }

func (f *fakeDHCP) Explain(q dhcpd.Query) dhcpd.Explanation {
	f.queries = append(f.queries, q)
	return f.answer
}

type fakeLeases []lease.Record

func (f fakeLeases) Get(a netip.Addr) (lease.Record, bool) {
	for _, r := range f {
		if r.IP == a {
			return r, true
		}
	}
	return lease.Record{}, false
}

func (f fakeLeases) filter(keep func(lease.Record) bool) []lease.Record {
	var out []lease.Record
	for _, r := range f {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out
}

func (f fakeLeases) BySubscriber(id provision.SubscriberID) []lease.Record {
	return f.filter(func(r lease.Record) bool { return r.Subscriber == id })
}

func (f fakeLeases) ByMAC(m provision.MAC) []lease.Record {
	return f.filter(func(r lease.Record) bool { return r.MAC == m })
}

func (f fakeLeases) Overruled(s *provision.Snapshot, now time.Time, most int) (int, []lease.Record) {
	all := f.filter(func(r lease.Record) bool { _, yes := r.Overruled(s); return yes && r.Live(now) })
	return len(all), all[:min(len(all), most)]
}

func (f fakeLeases) Counts(now time.Time) lease.Counts { return lease.Counts{Bound: len(f)} }

type fakeOutbox outbox.Status

func (f fakeOutbox) Status(int) outbox.Status { return outbox.Status(f) }

type fakeERP struct {
	err   error
	calls []provision.State
	hook  func()
	has   func() (bool, error) // the card; nil: it is not asked for
	looks int
}

func (f *fakeERP) HasState(context.Context, provision.SubscriberID, provision.State) (bool, error) {
	f.looks++
	return f.has()
}

func (f *fakeERP) ChangeState(_ context.Context, _ provision.SubscriberID, st provision.State) error {
	if f.hook != nil {
		f.hook()
	}
	f.calls = append(f.calls, st)
	return f.err
}

// world is a Deps with its fakes at hand.
type world struct {
	Deps
	syncer   *fakeSyncer
	enforcer *fakeEnforcer
	dhcp     *fakeDHCP
	erp      *fakeERP
	kernel   fakeKernel
	now      time.Time
	reg      *prometheus.Registry
}

func newWorld(t testing.TB) *world {
	t.Helper()
	snap, problems := testSnapshot(t)
	kinds := map[provision.ProblemKind]int{}
	for _, p := range problems {
		kinds[p.Kind]++
	}
	w := &world{
		syncer: &fakeSyncer{snapshot: snap, status: syncer.Status{Problems: kinds, ProblemsList: problems, AgeSeconds: 60}},
		enforcer: &fakeEnforcer{status: access.Status{
			Ready: true, WantStopped: 1, WantPaused: 1, HaveStopped: 1, HavePaused: 1,
		}},
		dhcp: &fakeDHCP{addr: netip.MustParseAddrPort("0.0.0.0:67"), answer: dhcpd.Explanation{
			Outcome: outcome.Offer, MatchedBy: "mac", YourIP: ip("198.51.100.11"), Via: "relay",
		}},
		erp:    &fakeERP{},
		kernel: fakeKernel{ip("198.51.100.12"): "paused", ip("198.51.100.13"): "stopped"},
		now:    testStart.Add(2 * time.Minute),
		reg:    prometheus.NewRegistry(),
	}
	w.Deps = Deps{
		Build: Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"}, Started: testStart,
		Now:    func() time.Time { return w.now },
		Syncer: w.syncer, Enforcer: w.enforcer, Kernel: w.kernel, DHCP: w.dhcp, Leases: fakeLeases{},
		Events: dhcpd.NewEventLog(64), Outbox: fakeOutbox{Enabled: true}, ERP: w.erp, Metrics: NewMetrics(w.reg),
	}
	return w
}

// packet makes the server see one packet.
func (w *world) packet(e dhcpd.Event) {
	if e.Type == 0 {
		e.Type = wire.Discover
	}
	w.Events.Packet(&e)
	w.Metrics.Packet(&e)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
