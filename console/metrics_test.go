package console

import (
	"context"
	"errors"
	"flag"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/provision/wal"
	"github.com/usher-agent/usher/userside"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

// scripted is a registry after one of everything happened.
func scripted(t *testing.T) (*prometheus.Registry, *Metrics) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	snap, problems := testSnapshot(t)
	kinds := map[provision.ProblemKind]int{}
	for _, p := range problems {
		kinds[p.Kind]++
	}
	boom := errors.New("boom")
	m.SetBuild(Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"})
	m.ConfigLoaded(testStart, 0x123456789abcdef0, nil)
	m.ConfigLoaded(testStart.Add(time.Hour), 0, boom)
	m.Fetched(syncer.FetchReport{Kind: syncer.FetchFull, Outcome: syncer.FetchPublished, Took: 2 * time.Second})
	m.Fetched(syncer.FetchReport{Kind: syncer.FetchFull, Outcome: syncer.FetchFailed, Took: 30 * time.Second, Err: boom})
	m.Fetched(syncer.FetchReport{Kind: syncer.FetchStates, Outcome: syncer.FetchPublished, Took: 80 * time.Millisecond})
	m.Fetched(syncer.FetchReport{Kind: syncer.FetchCustomers, Outcome: syncer.FetchPublished, Took: 8 * time.Millisecond, Waited: 12 * time.Millisecond})
	m.Fetched(syncer.FetchReport{Kind: "whole", Outcome: syncer.FetchPublished})
	m.Hint(HookAccepted)
	m.Hint(HookReplayed)
	m.Hint("no_such")
	m.Published(snap, kinds)
	m.Held(&syncer.HeldStatus{Decision: syncer.GuardDecision{
		Removed: syncer.GuardCount{Count: 3, Over: true}, Blocked: syncer.GuardCount{Count: 9, Hour: 5, Over: true}, Opened: syncer.GuardCount{Count: 2, Rejected: 5}}})
	m.OpenedUnconfirmed(6)
	m.Stored(300*time.Millisecond, nil)
	m.Stored(time.Second, boom)
	m.Batch(5, 150*time.Microsecond, nil)
	m.Batch(7, time.Second, boom)
	m.Drift(0, 0, 0)
	m.Drift(2, 1, 1)
	m.Maintenance(true)
	m.Refused(1)
	m.Withheld(map[access.Spared]int{access.SparedResolver: 2})
	m.Elements(access.SetCounts{access.SetStopped: 10, access.SetPaused: 20, access.SetGarden: 3})
	m.WatchUnheard(func() int { return 4 })
	m.WatchPassed(func(context.Context) ([]acl.Passed, error) {
		list := acl.Ways()
		list[1].Packets, list[1].Bytes = 7, 420
		return list, nil
	})
	m.Flows(12, nil)
	m.Flows(0, boom)
	m.PortalRequest(portal.StatePaused, 511)
	m.PortalRequest("no_such", 200)
	m.PortalRefused(portal.RefusedRate)
	m.PortalCertificate(testStart)
	m.GardenLookup(garden.ResultFailed)
	m.GardenRefused(garden.RefusedPrivate)
	m.GardenSize(2, 1, 5)
	m.Depth(3)
	m.Delivered(outbox.ResultSent)
	m.Delivered(outbox.ResultRefused)
	m.AuditRecords(audit.OutcomeWritten, 3)
	m.AuditRecords(audit.OutcomeLost, 1)
	m.AuditRecords("no_such", 1)
	m.AuditFailed()
	m.Call("customer.get_data", 80*time.Millisecond, userside.OutcomeOK)
	m.Call("customer.no_such", time.Second, userside.OutcomeTimeout)
	m.Commit(4, 900*time.Microsecond, nil)
	m.Commit(2, 200*time.Millisecond, boom)
	m.WatchBudget(func() userside.Budget {
		return userside.Budget{PerMinute: 1200, LastMinute: 4, Waited: 1500 * time.Millisecond}
	})
	m.WatchSources(func() []syncer.SourceStatus {
		return []syncer.SourceStatus{
			{Source: syncer.SourceFlags, Judgement: syncer.JudgedPartial, GoodAt: testStart, Unread: 95_000},
			{Source: syncer.SourceDevices, Judgement: syncer.JudgedFailed, GoodAt: testStart.Add(time.Hour)},
		}
	})
	m.WatchPending(func() []userside.Pending { return nil })
	m.WatchSockets(func() SocketCounts {
		return SocketCounts{Sockets: dhcpd.SocketStatus{Interfaces: 9, Served: 7, ReceiveDrops: 11, Standby: true}, Changes: 40, Resyncs: 1}
	})
	m.WatchSenders(func() senders.Status {
		return senders.Status{Counts: []senders.Count{
			{State: senders.Relay, Senders: 3, Packets: 900}, {State: senders.UnlistedSource, Senders: 1, Packets: 12},
			{State: senders.RelaySubscriber, Senders: 256, Packets: 5000, Missed: 4000}, {State: senders.AnySwitch, Senders: 2, Packets: 70},
			{State: senders.Option82Untrusted, Senders: 1, Packets: 6, Missed: 1},
		}, Option82: []senders.Info{{Option82: v4.InfoNone, Packets: 12}, {Option82: v4.InfoListed, Packets: 800}, {Option82: v4.InfoUntrusted, Packets: 100}}, Mixed: 2}
	})
	m.WatchState(func() lease.Health {
		return lease.Health{Path: "/var/lib/usher/leases", Error: "no space left on device", Unread: 4, PutAside: []string{"a", "b"},
			Log: wal.Status{Files: 3, Bytes: 5000, Snapshot: 2000, Snapshots: 1, SnapshotError: "no space left on device"}}
	}, func() outbox.Status { return outbox.Status{Unwritten: 48} })
	m.WatchLeases(func() lease.Counts { return lease.Counts{Bound: 5, Expired: 1} })
	m.WatchPools(func() []dhcpd.PoolStatus { return []dhcpd.PoolStatus{testPool()} })
	for range 3 {
		m.Packet(&dhcpd.Event{Type: wire.Discover, Outcome: outcome.Offer, Latency: 40 * time.Microsecond})
	}
	m.Packet(&dhcpd.Event{Type: wire.Request, Outcome: outcome.Ack, Stray: v4.StrayUnread, Latency: 15 * time.Microsecond})
	m.Packet(&dhcpd.Event{Type: wire.Discover, Outcome: outcome.Offer, Stray: v4.StrayUnread, Latency: 15 * time.Microsecond}) // nobody has it yet
	m.Packet(&dhcpd.Event{Type: wire.Request, Outcome: outcome.PoolAck, Stray: v4.StrayMoved, Latency: 15 * time.Microsecond})
	m.Packet(&dhcpd.Event{Type: 200, Outcome: outcome.UnexpectedType, Latency: 15 * time.Microsecond})
	m.Packet(&dhcpd.Event{Outcome: outcome.Malformed, Latency: 5 * time.Microsecond})
	return reg, m
}

// TestExposition pins every series, but for the age, which moves with the clock.
func TestExposition(t *testing.T) {
	reg, _ := scripted(t)
	got := exposition(reg)
	const golden = "testdata/metrics.golden"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("exposition (-want +got), go test -update writes it anew:\n%s", diff)
	}
}

var age = regexp.MustCompile(`(?m)^(usher_(?:snapshot|states)_age_seconds) .*$`)

func exposition(reg *prometheus.Registry) []byte {
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return age.ReplaceAll(rec.Body.Bytes(), []byte("$1 1"))
}

func TestLint(t *testing.T) {
	reg, _ := scripted(t)
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		f.Metric = f.Metric[:min(len(f.Metric), 2)] // each is compared with every other one, and what is told of all of them is one family's
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// TestDocumented compares docs/metrics.md with the exposition, both ways: name,
// type and labels of each metric.
func TestDocumented(t *testing.T) {
	reg, _ := scripted(t)
	families, err := reg.Gather()
	require.NoError(t, err)
	exposed := map[string]string{}
	for _, f := range families {
		labels := map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = true
			}
		}
		exposed[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(slices.Sorted(maps.Keys(labels)), ",")
	}
	text, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(usher_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| [^|]+ \\|[^|]*\\|$")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		labels := strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(m[3]))
		slices.Sort(labels)
		_, twice := documented[m[1]]
		assert.False(t, twice, "%s is documented twice", m[1])
		documented[m[1]] = m[2] + " " + strings.Join(labels, ",")
	}
	if diff := cmp.Diff(exposed, documented); diff != "" {
		t.Errorf("exposition and docs/metrics.md differ (-exposed +documented):\n%s", diff)
	}
	for _, name := range regexp.MustCompile(`usher_[a-z_]+`).FindAllString(string(text), -1) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		assert.Contains(t, exposed, base, "docs/metrics.md mentions it")
	}
}

// TestSeriesExistFromTheStart: a rate over a counter needs its zero.
func TestSeriesExistFromTheStart(t *testing.T) {
	fresh := prometheus.NewRegistry()
	NewMetrics(fresh)
	used, _ := scripted(t)
	series := func(reg *prometheus.Registry) []string {
		families, err := reg.Gather()
		require.NoError(t, err)
		var out []string
		for _, f := range families {
			for _, m := range f.Metric {
				// Pools are those of the configuration, and stay while it does.
				if f.GetName() != "usher_build_info" && !strings.HasPrefix(f.GetName(), "usher_dhcp_pool_") {
					out = append(out, f.GetName()+" "+labelText(m))
				}
			}
		}
		return out
	}
	assert.Equal(t, series(used), series(fresh), "no event makes a new series")
}

func labelText(m *dto.Metric) string {
	var b strings.Builder
	for _, l := range m.Label {
		b.WriteString(l.GetName() + "=" + l.GetValue() + " ")
	}
	return b.String()
}

func TestPacketPathDoesNotAllocate(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	e := &dhcpd.Event{Type: wire.Request, Outcome: outcome.Ack, Latency: 80 * time.Microsecond}
	assert.Zero(t, testing.AllocsPerRun(1000, func() { m.Packet(e) }))
	assert.Equal(t, uint64(1001), m.Outcomes()[0].Count)
	e.Stray = v4.StrayUnknownPort
	assert.Zero(t, testing.AllocsPerRun(1000, func() { m.Packet(e) }))
	assert.Equal(t, uint64(1001), valueOf(m.strays[v4.StrayUnknownPort]))
}

func TestPacketWithoutOutcomeIsIgnored(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	m.Packet(&dhcpd.Event{Type: 255})
	m.Packet(&dhcpd.Event{Type: 255, Outcome: 255})
	m.Packet(&dhcpd.Event{Type: 255, Outcome: 255, Stray: 255})
	assert.Empty(t, m.Outcomes())
}

func TestStoredSnapshotKeepsProblems(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	snap, _ := testSnapshot(t)
	m.Published(snap, map[provision.ProblemKind]int{provision.ProblemDuplicateIP: 2})
	m.Published(snap, nil)
	assert.InDelta(t, 2, testutil.ToFloat64(m.problems[provision.ProblemDuplicateIP]), 0)
}

func TestClosedSetsAreComplete(t *testing.T) {
	// Build can only answer with kinds of the set; a new constant that is missing
	// here would be counted nowhere.
	src, err := os.ReadFile("../provision/vocabulary.go")
	require.NoError(t, err)
	declared := regexp.MustCompile(`ProblemKind = "([a-z_]+)"`).FindAllStringSubmatch(string(src), -1)
	var kinds []provision.ProblemKind
	for _, d := range declared {
		kinds = append(kinds, provision.ProblemKind(d[1]))
	}
	assert.ElementsMatch(t, kinds, problemKinds())
}

func BenchmarkPacket(b *testing.B) {
	m := NewMetrics(prometheus.NewRegistry())
	e := &dhcpd.Event{Type: wire.Request, Outcome: outcome.Ack, Latency: 80 * time.Microsecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Packet(e)
	}
}
