package outbox

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func TestSettledReports(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	report := provision.MACReport{IP: ip(1), MAC: mac(1), At: at}
	snapshot := func(m provision.MAC, fetched time.Time) func() *provision.Snapshot {
		s, _ := provision.Build(provision.Input{FetchedAt: fetched, Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(ip(1)), MAC: m}}})
		return func() *provision.Snapshot { return s }
	}
	held := func(m provision.MAC, since time.Time) *lease.Table {
		tab := lease.New()
		tab.Store(lease.Record{IP: ip(1), MAC: m, State: lease.StateBound, Start: since, Renewed: since, Expires: since.Add(time.Hour)})
		return tab
	}
	none := func() *provision.Snapshot { return nil }
	for _, c := range []struct {
		name     string
		snapshot func() *provision.Snapshot
		leases   *lease.Table
		want     bool
	}{
		{"nothing known", none, lease.New(), false},
		{"the ERP has it by now", snapshot(mac(1), at.Add(time.Minute)), lease.New(), true},
		{"the ERP had it before the report", snapshot(mac(1), at.Add(-time.Minute)), lease.New(), false},
		{"the ERP has another", snapshot(mac(2), at.Add(time.Minute)), lease.New(), false},
		{"another client took over since", none, held(mac(2), at.Add(time.Second)), true},
		{"another client had it before", none, held(mac(2), at.Add(-time.Second)), false},
		{"the same client renewed", none, held(mac(1), at.Add(time.Second)), false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Settled(c.snapshot, c.leases)(report)) })
	}
}

// What only ARP told is dropped where something better is known by the time that it would be sent.
func TestSettledReportsOfARP(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	report := provision.MACReport{IP: ip(1), MAC: mac(1), At: at, ARP: provision.ARPSighting{Interface: "c1", Silent: mac(2), Asked: 3}}
	snapshot := func(m provision.MAC) func() *provision.Snapshot {
		s, _ := provision.Build(provision.Input{FetchedAt: at.Add(time.Minute), Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(ip(1)), MAC: m}}})
		return func() *provision.Snapshot { return s }
	}
	held := func(m provision.MAC, until time.Time) *lease.Table { // since long before the report
		tab := lease.New()
		tab.Store(lease.Record{IP: ip(1), MAC: m, State: lease.StateBound, Start: at.Add(-24 * time.Hour), Renewed: at, Expires: until})
		return tab
	}
	for _, c := range []struct {
		name     string
		snapshot func() *provision.Snapshot
		leases   *lease.Table
		want     bool
	}{
		{"the ERP still has the silent one", snapshot(mac(2)), lease.New(), false},
		{"the ERP was given another one meanwhile", snapshot(mac(3)), lease.New(), true},
		{"a client has renewed since", snapshot(mac(2)), held(mac(2), time.Now().Add(time.Hour)), true},
		{"its lease is over", snapshot(mac(2)), held(mac(2), at), false},
		{"nothing is known", func() *provision.Snapshot { return nil }, lease.New(), false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Settled(c.snapshot, c.leases)(report)) })
	}
}

func TestJournalStoresLeaseAndReportTogether(t *testing.T) {
	dir := t.TempDir()
	store, err := lease.OpenStore(t.Context(), dir, quiet())
	require.NoError(t, err)
	leases, err := lease.Open(store)
	require.NoError(t, err)
	box, err := Open(store, Options{}, nil, nil, nil)
	require.NoError(t, err)
	at := time.Now()
	require.NoError(t, lease.Journal{Table: leases, Reports: box}.Commit([]lease.Commit{{
		Lease:  lease.Record{IP: ip(1), MAC: mac(1), State: lease.StateBound, Start: at, Renewed: at, Expires: at.Add(time.Hour)},
		Report: &provision.MACReport{IP: ip(1), MAC: mac(1), At: at},
	}, { // of a client that is not answered yet
		Report: &provision.MACReport{IP: ip(2), MAC: mac(2), At: at},
	}}))
	require.NoError(t, store.Close())

	store, err = lease.OpenStore(t.Context(), dir, quiet())
	require.NoError(t, err)
	defer store.Close()
	leases, err = lease.Open(store)
	require.NoError(t, err)
	rec, ok := leases.Get(ip(1))
	require.True(t, ok)
	require.Equal(t, mac(1), rec.MAC)
	box, err = Open(store, Options{}, nil, nil, nil)
	require.NoError(t, err)
	require.Equal(t, 1, leases.Len())
	require.Equal(t, 2, box.Status(0).Depth)
}
