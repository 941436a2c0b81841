package lease

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func TestOpenStore(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Run("a damaged file is put aside", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "state.db")
		require.NoError(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
		store, err := OpenStore(dir, log)
		require.NoError(t, err)
		require.NotNil(t, store)
		require.NoError(t, store.Close())
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
			store, err := OpenStore(dir, log)
			require.NoError(t, err)
			tab, err := Open(store)
			require.NoError(t, err)
			var recs []Commit
			for i := range 2000 {
				ip := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
				recs = append(recs, Commit{Lease: Record{IP: ip, MAC: mac1, State: StateBound, Expires: time.Now()}})
			}
			require.NoError(t, Journal{Table: tab}.Commit(recs))
			require.NoError(t, store.Close())
			path := filepath.Join(dir, "state.db")
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(b), 0o600))
			store, err = OpenStore(dir, log)
			require.NoError(t, err)
			require.NotNil(t, store)
			require.NoError(t, store.Close())
		})
	}
	t.Run("no place to write is no reason to stop", func(t *testing.T) {
		store, err := OpenStore(filepath.Join(t.TempDir(), "missing"), log)
		require.NoError(t, err)
		tab, err := Open(store)
		require.NoError(t, err)
		require.True(t, store.Volatile())
		require.NoError(t, tab.commit(Record{IP: ip7, MAC: mac1, State: StateBound, Expires: time.Now()}))
		require.NoError(t, store.Close())
	})
	t.Run("another agent has it", func(t *testing.T) {
		dir := t.TempDir()
		store, err := OpenStore(dir, log)
		require.NoError(t, err)
		defer store.Close()
		_, err = OpenStore(dir, log)
		require.ErrorIs(t, err, ErrInUse)
	})
}

// What a report was seen by outlives a restart, and belongs to that report alone.
func TestReportsKeepHowARPShowedThem(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_800_000_000, 5)
	dhcp := provision.MACReport{IP: ip7, MAC: mac1, Subscriber: 1001, At: at}
	arp := provision.MACReport{IP: ip7.Next(), MAC: mac1, Subscriber: 1002, At: at, ARP: provision.ARPSighting{Interface: "eth1.7", Silent: provision.MAC{2}, Asked: 3}}
	commit := func(reports, done []provision.MACReport) {
		s, err := OpenStore(dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.Commit(func(b *Batch) error {
			b.Reports, b.Done = append(b.Reports, reports...), append(b.Done, done...)
			return nil
		}))
	}
	kept := func() (out []provision.MACReport) {
		s, err := OpenStore(dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.Reports(func(r provision.MACReport, err error) {
			require.NoError(t, err)
			out = append(out, r)
		}))
		return out
	}
	path := filepath.Join(dir, "state.db")
	commit([]provision.MACReport{dhcp}, nil)
	require.NotContains(t, raw(t, path), sightingBucket, "nothing that an older usher does not know, where none is needed")
	commit([]provision.MACReport{arp}, nil)
	require.Equal(t, []provision.MACReport{dhcp, arp}, kept())

	later := arp
	later.At, later.ARP = at.Add(time.Second), provision.ARPSighting{}
	commit([]provision.MACReport{later}, nil)
	require.Equal(t, []provision.MACReport{dhcp, later}, kept(), "by DHCP")
	arp.At = at.Add(time.Minute)
	commit([]provision.MACReport{arp}, nil)
	put(t, path, sightingBucket, string(ip7.AsSlice()), []byte("junk"))
	require.Equal(t, []provision.MACReport{dhcp, arp}, kept(), "what cannot be read costs the evidence, not the report")
	commit(nil, []provision.MACReport{dhcp, arp})
	require.Empty(t, kept())
	require.Empty(t, raw(t, path)[sightingBucket])
}

// Neither does the packet of a report get lost, and it is that of no other one.
func TestReportsKeepTheirPacket(t *testing.T) {
	dir := t.TempDir()
	r := provision.MACReport{IP: ip7, MAC: mac1, Subscriber: 1001, At: time.Unix(1_800_000_000, 5), Packet: provision.Packet{
		Source: netip.MustParseAddrPort("192.0.2.1:67"), Interface: "eth1", Relay: netip.MustParseAddr("192.0.2.2"), Option82: "0106000400640003",
		Device: 7, Port: 3, VouchedBy: "relay", MatchedBy: "option82", Rule: "select_has"}}
	in := func(f func(Store) error) {
		s, err := OpenStore(dir, slog.New(slog.DiscardHandler))
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
	require.Empty(t, raw(t, filepath.Join(dir, "state.db"))[packetBucket])
}
