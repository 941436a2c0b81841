package lease

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func TestOpenStore(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Run("no place to write is no reason to stop, and ends by itself", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "missing")
		store, err := OpenStore(t.Context(), dir, log)
		require.NoError(t, err)
		defer store.Close()
		tab, err := Open(store)
		require.NoError(t, err)
		h := store.Health()
		require.True(t, h.Failing())
		require.Contains(t, h.Error, "no such file or directory")
		rec := testRecord(ip7)
		tab.Store(rec)
		require.ErrorIs(t, tab.commit(rec), errNotYet)
		tab.Dirty(ip7)
		require.Error(t, tab.Flush())
		require.NoError(t, os.Mkdir(dir, 0o750))
		require.Eventually(t, func() bool { return !store.Health().Failing() }, 5*time.Second, 10*time.Millisecond)
		require.NoError(t, tab.Flush())
		require.NoError(t, store.Close())
		_, ok := openTable(t, openStore(t, filepath.Join(dir, "x"))).Get(ip7)
		require.True(t, ok)
	})
	t.Run("another agent has it", func(t *testing.T) {
		dir := t.TempDir()
		store, err := OpenStore(t.Context(), dir, log)
		require.NoError(t, err)
		defer store.Close()
		_, err = OpenStore(t.Context(), dir, log)
		require.ErrorIs(t, err, ErrInUse)
	})
}

// What is on a disk that cannot be read at the start comes when it can; what memory has by then is newer.
func TestDiskThatComesLater(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, filepath.Join(dir, "x"))
	tab := openTable(t, store)
	for _, ip := range []netip.Addr{ip7, ip7.Next()} {
		tab.Store(testRecord(ip))
		require.NoError(t, tab.commit(testRecord(ip)))
	}
	require.NoError(t, store.Close())
	path := filepath.Join(dir, logName)
	require.NoError(t, os.Rename(path, path+".away"))
	require.NoError(t, os.WriteFile(path, nil, 0o600)) // no directory

	store = openStore(t, filepath.Join(dir, "x"))
	tab = openTable(t, store)
	require.Zero(t, tab.Len())
	require.True(t, store.Health().Failing())
	newer := testRecord(ip7)
	newer.MAC, newer.Renewed = mac2, testNow.Add(time.Hour)
	tab.Store(newer)
	require.ErrorIs(t, tab.commit(newer), errNotYet)
	tab.Dirty(ip7)

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Rename(path+".away", path))
	require.Eventually(t, func() bool { return !store.Health().Failing() }, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, 2, tab.Len())
	got, _ := tab.Get(ip7)
	require.Equal(t, mac2, got.MAC)
	require.NoError(t, tab.Flush())
	require.NoError(t, store.Close())
	tab = openTable(t, openStore(t, filepath.Join(dir, "x")))
	got, _ = tab.Get(ip7)
	require.Equal(t, mac2, got.MAC)
	_, ok := tab.Get(ip7.Next())
	require.True(t, ok)
}

// Taken away while it is written, all of it is written again in the new place.
func TestDirectoryTakenAway(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, filepath.Join(dir, "x"))
	tab := openTable(t, store)
	for _, ip := range []netip.Addr{ip7, ip7.Next()} {
		tab.Store(testRecord(ip))
		require.NoError(t, tab.commit(testRecord(ip)))
	}
	require.Eventually(t, func() bool { return os.RemoveAll(filepath.Join(dir, logName)) == nil }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, logName, "lock"))
		return err == nil && !store.Health().Failing()
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, tab.Flush())
	require.NoError(t, store.Close())
	require.Equal(t, 2, openTable(t, openStore(t, filepath.Join(dir, "x"))).Len())
}

// What a report was seen by outlives a restart, and belongs to that report alone.
func TestReportsKeepHowARPShowedThem(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_800_000_000, 5)
	dhcp := provision.MACReport{IP: ip7, MAC: mac1, Subscriber: 1001, At: at}
	arp := provision.MACReport{IP: ip7.Next(), MAC: mac1, Subscriber: 1002, At: at, ARP: provision.ARPSighting{Interface: "eth1.7", Silent: provision.MAC{2}, Asked: 3}}
	commit := func(reports, done []provision.MACReport) {
		s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.Commit(func(b *Batch) error {
			b.Reports, b.Done = append(b.Reports, reports...), append(b.Done, done...)
			return nil
		}))
	}
	kept := func() (out []provision.MACReport) {
		s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.Reports(func(r provision.MACReport, err error) {
			require.NoError(t, err)
			out = append(out, r)
		}))
		slices.SortFunc(out, func(a, b provision.MACReport) int { return a.IP.Compare(b.IP) })
		return out
	}
	commit([]provision.MACReport{dhcp}, nil)
	commit([]provision.MACReport{arp}, nil)
	require.Equal(t, []provision.MACReport{dhcp, arp}, kept())

	later := arp
	later.At, later.ARP = at.Add(time.Second), provision.ARPSighting{}
	commit([]provision.MACReport{later}, nil)
	require.Equal(t, []provision.MACReport{dhcp, later}, kept(), "by DHCP")
	arp.At = at.Add(time.Minute)
	commit([]provision.MACReport{arp}, nil)
	require.Equal(t, []provision.MACReport{dhcp, arp}, kept())
	commit(nil, []provision.MACReport{dhcp, arp})
	require.Empty(t, kept())
}

// Neither does the packet of a report get lost, and it is that of no other one.
func TestReportsKeepTheirPacket(t *testing.T) {
	dir := t.TempDir()
	r := provision.MACReport{IP: ip7, MAC: mac1, Subscriber: 1001, At: time.Unix(1_800_000_000, 5), Packet: provision.Packet{
		Source: netip.MustParseAddrPort("192.0.2.1:67"), Interface: "eth1", Relay: netip.MustParseAddr("192.0.2.2"), Option82: "0106000400640003",
		Device: 7, Port: 3, VouchedBy: "relay", MatchedBy: "option82", Rule: "select_has"}}
	in := func(f func(Store) error) {
		s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, f(s))
	}
	put := func(r provision.MACReport) {
		in(func(s Store) error {
			return s.Commit(func(b *Batch) error { b.Reports = append(b.Reports, r); return nil })
		})
	}
	want := func(want ...provision.MACReport) {
		t.Helper()
		var kept []provision.MACReport
		in(func(s Store) error {
			return s.Reports(func(r provision.MACReport, err error) {
				require.NoError(t, err)
				kept = append(kept, r)
			})
		})
		require.Equal(t, want, kept)
	}
	put(r)
	want(r)
	later := r
	later.At, later.Packet = r.At.Add(time.Second), provision.Packet{}
	put(later)
	want(later)
	later.At, later.Packet = later.At.Add(time.Second), provision.Packet{Rule: "extend_kept"}
	put(later)
	want(later)
	in(func(s Store) error {
		return s.Commit(func(b *Batch) error { b.Done = append(b.Done, later); return nil })
	})
	want()
}
