package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
)

var (
	testIP   = netip.MustParseAddr("192.0.2.17")
	testMAC  = provision.MAC{0, 0, 0x5e, 0, 0x53, 1}
	otherMAC = provision.MAC{0, 0, 0x5e, 0, 0x53, 2}
)

func TestSettledReports(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	report := provision.MACReport{IP: testIP, MAC: testMAC, At: at}
	snapshot := func(mac provision.MAC, fetched time.Time) func() *provision.Snapshot {
		s, _ := provision.Build(provision.Input{FetchedAt: fetched, Bindings: []provision.Binding{{Subscriber: 1, IP: testIP, MAC: mac}}})
		return func() *provision.Snapshot { return s }
	}
	held := func(mac provision.MAC, since time.Time) *lease.Table {
		tab := lease.New()
		tab.Store(lease.Record{IP: testIP, MAC: mac, State: lease.StateBound, Start: since, Renewed: since, Expires: since.Add(time.Hour)})
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
		{"the ERP has it by now", snapshot(testMAC, at.Add(time.Minute)), lease.New(), true},
		{"the ERP had it before the report", snapshot(testMAC, at.Add(-time.Minute)), lease.New(), false},
		{"the ERP has another", snapshot(otherMAC, at.Add(time.Minute)), lease.New(), false},
		{"another client took over since", none, held(otherMAC, at.Add(time.Second)), true},
		{"another client had it before", none, held(otherMAC, at.Add(-time.Second)), false},
		{"the same client renewed", none, held(testMAC, at.Add(time.Second)), false},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, settled(c.snapshot, c.leases)(report)) })
	}
}

func TestOpenState(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	t.Run("a damaged file is put aside", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "state.db")
		require.NoError(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
		db, err := openState(dir, log)
		require.NoError(t, err)
		require.NotNil(t, db)
		require.NoError(t, db.Close())
		require.FileExists(t, path+".bad")
	})
	for name, damage := range map[string]func([]byte) []byte{
		"rubbish behind the first pages": func(b []byte) []byte {
			for i := 4 * 4096; i < len(b); i++ { // the two meta pages stay good
				b[i] = 0xff
			}
			return b
		},
		"rubbish in one page": func(b []byte) []byte { copy(b[20*4096:], make([]byte, 4096)); return b },
		"cut short":           func(b []byte) []byte { return b[:len(b)/2] },
		"cut to nothing":      func(b []byte) []byte { return b[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db, err := openState(dir, log)
			require.NoError(t, err)
			tab, err := lease.Open(db)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
				for i := range 2000 {
					ip := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
					if err := tab.PutTx(tx, lease.Record{IP: ip, MAC: testMAC, State: lease.StateBound, Expires: time.Now()}); err != nil {
						return err
					}
				}
				return nil
			}))
			require.NoError(t, db.Close())
			path := filepath.Join(dir, "state.db")
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(b), 0o600))
			db, err = openState(dir, log)
			require.NoError(t, err)
			require.NotNil(t, db)
			require.NoError(t, db.Close())
		})
	}
	t.Run("no place to write is no reason to stop", func(t *testing.T) {
		db, err := openState(filepath.Join(t.TempDir(), "missing"), log)
		require.NoError(t, err)
		tab, err := lease.Open(db)
		require.NoError(t, err)
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			return tab.PutTx(tx, lease.Record{IP: testIP, MAC: testMAC, State: lease.StateBound, Expires: time.Now()})
		}))
		require.NoError(t, db.Close())
	})
	t.Run("another agent has it", func(t *testing.T) {
		dir := t.TempDir()
		db, err := openState(dir, log)
		require.NoError(t, err)
		defer db.Close()
		_, err = openState(dir, log)
		require.ErrorIs(t, err, errStateInUse)
	})
}

func TestJournalStoresLeaseAndReportTogether(t *testing.T) {
	dir := t.TempDir()
	db, err := openState(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	leases, err := lease.Open(db)
	require.NoError(t, err)
	box, err := outbox.Open(db, outbox.Options{}, nil, nil, nil)
	require.NoError(t, err)
	at := time.Now()
	require.NoError(t, journal{db: db, leases: leases, outbox: box}.Commit([]dhcpd.Commit{{
		Lease:  lease.Record{IP: testIP, MAC: testMAC, State: lease.StateBound, Start: at, Renewed: at, Expires: at.Add(time.Hour)},
		Report: &provision.MACReport{IP: testIP, MAC: testMAC, At: at},
	}, { // of a client that is not answered yet
		Report: &provision.MACReport{IP: testIP.Next(), MAC: otherMAC, At: at},
	}}))
	require.NoError(t, db.Close())

	db, err = openState(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer db.Close()
	leases, err = lease.Open(db)
	require.NoError(t, err)
	rec, ok := leases.Get(testIP)
	require.True(t, ok)
	require.Equal(t, testMAC, rec.MAC)
	box, err = outbox.Open(db, outbox.Options{}, nil, nil, nil)
	require.NoError(t, err)
	require.Equal(t, 1, leases.Len())
	require.Equal(t, 2, box.Status(0).Depth)
}
