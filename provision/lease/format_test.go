package lease

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
)

// unmarkedFile puts what the version before marks wrote into a new directory:
// records of versions 1, 2 and 3, three each, and a report with the first of each.
func unmarkedFile(t testing.TB) (dir, path string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "unmarked.db.gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	data, err := io.ReadAll(z)
	require.NoError(t, err)
	dir = t.TempDir()
	path = filepath.Join(dir, "state.db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return dir, path
}

// raw is the content of a database, by bucket and key.
func raw(t testing.TB, path string) map[string]map[string]string {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	require.NoError(t, err)
	defer db.Close()
	all := map[string]map[string]string{}
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			all[string(name)] = map[string]string{}
			return b.ForEach(func(k, v []byte) error { all[string(name)][string(k)] = string(v); return nil })
		})
	}))
	return all
}

// put writes into a database behind the store's back.
func put(t testing.TB, path, bucket, key string, value []byte) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		require.NoError(t, err)
		return b.Put([]byte(key), value)
	}))
	require.NoError(t, db.Close())
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func names(t testing.TB, dir string) (all []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, d := range list {
		all = append(all, d.Name())
	}
	return all
}

// A file of the version before is read and put aside, and nothing of it is lost: its records know nothing of the ERP, so none
// of them loses to anything, until an accepted whole fetch tells.
func TestFileOfTheVersionBefore(t *testing.T) {
	dir, path := unmarkedFile(t)
	before := raw(t, path)
	require.Len(t, before, 2)
	require.Len(t, before["leases"], 9)
	require.Len(t, before["mac_reports"], 3)
	store, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	tab := openTable(t, store)
	n, why := tab.Skipped()
	require.Zero(t, n, "%v", why)
	require.Equal(t, 9, tab.Len())
	rec, ok := tab.Get(netip.MustParseAddr("192.0.2.33"))
	require.True(t, ok)
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	require.Equal(t, Record{
		IP: netip.MustParseAddr("192.0.2.33"), MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, 33}, Subscriber: 1033, Device: 9, Port: 3,
		Option82: Hex{1, 1, 'x'}, GIAddr: netip.MustParseAddr("198.51.100.1"), Ifindex: 3, Interface: "eth0",
		Pool: "homes", Key: provision.MAC{3, 1, 2, 3, 4, 5}.Owner(), State: StateBound, Start: at, Renewed: at.Add(time.Minute), Expires: at.Add(time.Hour),
	}, rec)
	rec, _ = tab.Get(netip.MustParseAddr("192.0.2.23"))
	require.Equal(t, "guests", rec.Pool)
	rec, _ = tab.Get(netip.MustParseAddr("192.0.2.12"))
	require.Equal(t, StateReleased, rec.State)
	reports := 0
	require.NoError(t, store.Reports(func(r provision.MACReport, err error) {
		require.NoError(t, err)
		require.Equal(t, at, r.At.UTC())
		reports++
	}))
	require.Equal(t, 3, reports)

	var lines []provision.Line
	for r := range tab.All() {
		require.Zero(t, r.ERP)
		if r.Pool == "" {
			lines = append(lines, provision.Line{Subscriber: r.Subscriber, Addresses: provision.Hosts4(r.IP), MAC: provision.MAC{2, 9}})
		}
	}
	fetch := func(began time.Time, source provision.Source) *provision.Snapshot {
		s, _ := provision.Build(provision.Input{Lines: lines, Source: source, FetchedAt: began})
		return s
	}
	overruled := func(s *provision.Snapshot) (n int) {
		for r := range tab.All() {
			if _, yes := r.Overruled(s); yes {
				n++
			}
		}
		return n
	}
	now := at.Add(time.Minute)
	first := fetch(now, provision.SourceDirect)
	require.Zero(t, overruled(first), "they lose to nothing that they know nothing of")
	learned, n := tab.Adopt(first, now)
	require.Equal(t, []int{len(lines), 0}, []int{learned, n})
	require.Zero(t, overruled(fetch(now.Add(time.Minute), provision.SourceDirect)))
	for i := range lines {
		lines[i].MAC = provision.MAC{2, 10}
	}
	require.Equal(t, len(lines), overruled(fetch(now.Add(2*time.Minute), provision.SourceDirect)))

	for r := range tab.All() {
		tab.Dirty(r.IP)
	}
	require.NoError(t, tab.Close())
	require.NoError(t, store.Close())
	require.Equal(t, map[string]map[string]string{"format": {"state": string(encodeMark(3))}}, raw(t, path), "an older usher is refused by it")
	require.Equal(t, []string{"leases", "state.db", "state.db.format1"}, names(t, dir))
	require.Equal(t, before, raw(t, path+".format1"), "what the version before had, for the way back")

	store, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	tab = openTable(t, store)
	require.Equal(t, 9, tab.Len())
	for k, v := range before["leases"] {
		was, err := decode([]byte(k), []byte(v))
		require.NoError(t, err)
		is, ok := tab.Get(was.IP)
		require.True(t, ok)
		require.Equal(t, was.Pool == "", is.ERP.Direct == ERPMAC{provision.MAC{2, 9}, now.UnixNano()})
		is.ERP = ERPMACs{}
		require.Equal(t, was, is)
	}
	require.NoError(t, store.Close())
	require.Equal(t, []string{"leases", "state.db", "state.db.format1"}, names(t, dir), "it is moved once")

	// The way back, and the next upgrade: what was given meanwhile is taken over, nothing that is newer in the log is lost, and no copy is overwritten.
	require.NoError(t, os.Rename(path+".format1", path))
	older, newer := testRecord(netip.MustParseAddr("192.0.2.33")), testRecord(netip.MustParseAddr("192.0.2.99"))
	older.Renewed = at.Add(-time.Hour)
	for _, r := range []Record{older, newer} {
		put(t, path, leaseBucket, string(keyBytes(ipKey(r.IP))), encode(nil, &r))
	}
	require.NoError(t, os.WriteFile(path+".format1", []byte("of another time"), 0o600))
	tab = openTable(t, openStore(t, path))
	require.Equal(t, 10, tab.Len())
	rec, _ = tab.Get(older.IP)
	require.Equal(t, at.Add(time.Minute), rec.Renewed)
	require.Equal(t, []string{"leases", "state.db", "state.db.format1", "state.db.format1.2"}, names(t, dir))
	require.Equal(t, "of another time", read(t, path+".format1"))
}

func TestNewerStateIsRefused(t *testing.T) {
	rec := testRecord(ip7)
	newer := encode(nil, &rec)
	newer[0] = 5
	newer = append(newer[:len(newer)-crcLen], "what is new"...)
	newer = binary.BigEndian.AppendUint32(newer, checksum(ipKey(ip7), newer))
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string)
		want   string
	}{
		{"by its mark", func(t *testing.T, path string) { put(t, path, markBucket, markKey, encodeMark(4)) },
			" has state format 4, this usher reads up to 3: a newer usher wrote it, and it is left as it is. Start the newer usher again; or "},
		{"by a record, without a mark", func(t *testing.T, path string) { put(t, path, leaseBucket, string(keyBytes(ipKey(ip7))), newer) },
			" has lease records of version 5, this usher reads up to 4: a newer usher wrote it"},
		{"by its mark, and damaged", func(t *testing.T, path string) {
			put(t, path, markBucket, markKey, encodeMark(4))
			filler := bytes.Repeat([]byte("filler"), 50)
			for i := range uint32(40) { // more than a page
				put(t, path, leaseBucket, string(keyBytes(i)), filler)
			}
			b := []byte(read(t, path))
			for page := range slices.Chunk(b, os.Getpagesize()) {
				if bytes.Contains(page, filler) {
					copy(page, bytes.Repeat([]byte{0xff}, len(page)))
				}
			}
			require.NoError(t, os.WriteFile(path, b, 0o600))
		}, " has state format 4, this usher reads up to 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, path := unmarkedFile(t)
			c.damage(t, path)
			content := read(t, path)
			_, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
			require.ErrorAs(t, err, new(*statedir.NewerError))
			require.ErrorContains(t, err, path+c.want)
			require.ErrorContains(t, err, "put a copy from before the upgrade back if you have one")
			require.ErrorContains(t, err, "move the file away and lose what clients were given: addresses of pools that are in use may be given to others")
			require.Equal(t, content, read(t, path))
			require.Equal(t, []string{"leases", "state.db"}, names(t, dir))
		})
	}
}

// A bit that flips in the version of a record costs that record, not the start.
func TestDamagedRecordIsNotNewer(t *testing.T) {
	dir, path := unmarkedFile(t)
	rec := testRecord(ip7)
	damaged := encode(nil, &rec)
	damaged[0] ^= 8
	put(t, path, leaseBucket, string(keyBytes(ipKey(ip7))), damaged)
	store, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer store.Close()
	tab := openTable(t, store)
	require.Equal(t, 9, tab.Len())
	h := store.Health()
	require.Equal(t, 1, h.Unread)
	require.Equal(t, []string{"bad stored lease 192.0.2.7: version 12, want up to 4"}, h.What)
}

// A bit that flips in a mark must not keep the agent from starting.
func TestDamagedMarkIsNone(t *testing.T) {
	for _, mark := range []string{"", "4 90f599e3", "1 90f599e2", "1", "x"} {
		dir, path := unmarkedFile(t)
		put(t, path, markBucket, markKey, []byte(mark))
		store, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err, mark)
		require.NoError(t, store.Close())
		require.Equal(t, string(encodeMark(3)), raw(t, path)["format"]["state"])
		require.Equal(t, []string{"leases", "state.db", "state.db.format1"}, names(t, dir))
	}
}
