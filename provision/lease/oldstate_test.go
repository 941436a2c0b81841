package lease

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedb"
	"github.com/usher-agent/usher/provision/wal"
)

// oldDatabase is what a version before the log wrote: some pages of leases, written in several rounds so that there are free pages, and some reports.
func oldDatabase(t testing.TB, leases int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
	require.NoError(t, err)
	for round := range 4 {
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{leaseBucket, reportBucket, markBucket} {
				_, err := tx.CreateBucketIfNotExists([]byte(name))
				require.NoError(t, err)
			}
			for i := range leases {
				if round > 0 && i%5 != round {
					continue
				}
				r := testRecord(oldIP(i))
				r.Renewed = testNow.Add(time.Duration(round) * time.Minute)
				require.NoError(t, tx.Bucket([]byte(leaseBucket)).Put(keyBytes(ipKey(r.IP)), encode(nil, &r)))
			}
			for i := range 50 {
				k, v := encodeReport(provision.MACReport{IP: oldIP(i), MAC: mac1, At: testNow})
				require.NoError(t, tx.Bucket([]byte(reportBucket)).Put(k, v))
			}
			return tx.Bucket([]byte(markBucket)).Put([]byte(markKey), encodeMark(2))
		}))
	}
	require.NoError(t, db.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func oldIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }

// startOn opens the store over an old file and returns what came of it, within the time that a start may take.
func startOn(t testing.TB, file []byte, what string) (dir string, leases, reports int, h Health) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, oldName)
	require.NoError(t, os.WriteFile(path, file, 0o600))
	began := time.Now()
	store, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err, what)
	defer store.Close()
	tab := openTable(t, store)
	require.NoError(t, store.Reports(func(_ provision.MACReport, err error) {
		require.NoError(t, err, what)
		reports++
	}))
	require.Less(t, time.Since(began), 5*time.Second, what)
	return dir, tab.Len(), reports, store.Health()
}

// Whatever is wrong with the database of a version before, the agent starts within seconds, takes over what can be read, says what
// not, and keeps the file.
func TestDamagedOldDatabase(t *testing.T) {
	const leases = 600
	good := oldDatabase(t, leases)
	_, n, reports, h := startOn(t, good, "whole")
	require.Equal(t, []int{leases, 50, 0}, []int{n, reports, h.Unread})
	page := os.Getpagesize()
	find := func(flag uint16) (at int) { // a page of a kind
		for at = 2 * page; at < len(good); at += page {
			if binary.NativeEndian.Uint16(good[at+8:]) == flag {
				return at
			}
		}
		t.Fatalf("no page of kind %#x", flag)
		return 0
	}
	free, branch, leaf := find(0x10), find(1), find(2)
	change := func(do func(b []byte) []byte) []byte { return do(bytes.Clone(good)) }
	flip := func(at int, bit byte) []byte {
		return change(func(b []byte) []byte { b[at] ^= bit; return b })
	}
	for _, c := range []struct {
		name   string
		file   []byte
		leases int // at least
	}{
		{"list of free pages: an entry", flip(free+16, 1), leases},
		{"list of free pages: its length", flip(free+10, 0x40), leases},
		{"list of free pages: its kind", flip(free+8, 2), leases},
		{"a branch that leads to itself", change(func(b []byte) []byte {
			id := binary.NativeEndian.Uint64(b[branch:])
			for i := range int(binary.NativeEndian.Uint16(b[branch+10:])) {
				binary.NativeEndian.PutUint64(b[branch+16+16*i+8:], id)
			}
			return b
		}), leases},
		{"a leaf of rubbish", change(func(b []byte) []byte {
			for i := range page {
				b[leaf+i] = 0xff
			}
			return b
		}), leases / 2},
		{"a leaf that counts too much", flip(leaf+11, 0xff), leases / 2},
		{"cut in half", good[:len(good)/2], 0},
		{"cut to one byte", good[:1], 0},
		{"empty", nil, 0},
		{"zeros", make([]byte, 64<<10), 0},
		{"no database", bytes.Repeat([]byte("state"), 10000), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, n, _, h := startOn(t, c.file, c.name)
			require.GreaterOrEqual(t, n, c.leases)
			if n < leases {
				require.NotZero(t, h.Unread)
				require.NotEmpty(t, h.What)
			}
			kept, err := filepath.Glob(filepath.Join(dir, oldName+".*"))
			require.NoError(t, err)
			require.Len(t, kept, 1)
			require.Equal(t, string(c.file), read(t, kept[0]))
			require.Equal(t, string(successorFile()), read(t, filepath.Join(dir, oldName)))
		})
	}
}

// One bit, anywhere.
func TestOldDatabaseWithAFlippedBit(t *testing.T) {
	const leases = 200
	good := oldDatabase(t, leases)
	rng := rand.New(rand.NewPCG(1, 2))
	for range long.Times(t, 12, 3000) {
		at, bit := rng.IntN(len(good)), byte(1)<<rng.IntN(8)
		bad := bytes.Clone(good)
		bad[at] ^= bit
		_, n, _, h := startOn(t, bad, "a bit")
		require.GreaterOrEqual(t, n, leases-1, "bit %d of byte %d", bit, at)
		if n < leases {
			require.NotZero(t, h.Unread)
		}
	}
}

// A child that waits for the file, as for another agent that lets go of it late, does not count as one that goes in circles: the file would
// be taken for damaged, and moved away under that agent.
func TestWaitingForTheOldDatabaseIsNoDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), oldName)
	require.NoError(t, syscall.Mkfifo(path, 0o600))                // opening it waits
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // twice as long as it may go in circles
	defer cancel()
	require.ErrorIs(t, statedb.Read(ctx, path, func(statedb.Item) {}), context.DeadlineExceeded)
}

// Where no child process can be had, as for want of memory or of files, nobody knows what the database has: that is tried again, and
// not taken for damage.
func TestNoChildForTheOldDatabaseIsNoDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), oldName)
	require.NoError(t, os.WriteFile(path, oldDatabase(t, 10), 0o600))
	var was syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: was.Max}))
	s := &logStore{log: slog.New(slog.DiscardHandler), told: map[uint64]struct{}{}, seed: maphash.MakeSeed()}
	o := &oldState{path: path, records: map[recordKey]wal.Record{}}
	err := o.read(t.Context(), s)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	require.ErrorIs(t, err, syscall.EMFILE)
	require.False(t, o.damaged)
	require.Zero(t, s.nUnread)
	require.NoError(t, o.read(t.Context(), s))
	require.Len(t, o.records, 10+50)
}

// What stands in place of state.db and is no file, such as a pipe that nobody writes to, holds no start: it is a disk that cannot be used.
func TestPipeInPlaceOfTheOldDatabase(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, oldName)
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	opened := make(chan Store, 1)
	go func() {
		s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		assert.NoError(t, err)
		opened <- s
	}()
	select {
	case s := <-opened:
		defer func() { require.NoError(t, s.Close()) }()
		require.Contains(t, s.Health().Error, path+": it is not a regular file")
		require.NoError(t, os.Remove(path))
		require.Eventually(t, func() bool { return !s.Failing() }, 10*time.Second, 10*time.Millisecond)
	case <-time.After(10 * time.Second):
		f, err := os.OpenFile(path, os.O_RDWR, 0) // it lets go
		require.NoError(t, err)
		_ = f.Close()
		t.Fatal("the start waits for who writes to the pipe")
	}
}

// A start that takes long because a damaged file is large says how far it is.
func TestLongStartIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		s := &logStore{log: slog.New(slog.NewTextHandler(&text, nil))}
		progress := s.progress("/x/state.db")
		for i := range int64(12) {
			progress(i<<20, 100<<20)
			time.Sleep(time.Second) // fake time
		}
		lines := regexp.MustCompile(`looked through for leases" path=/x/state.db bytes=(\d+) of=104857600`).FindAllStringSubmatch(text.String(), -1)
		require.Len(t, lines, 2)
		require.Equal(t, "5242880", lines[0][1])
		require.Equal(t, "10485760", lines[1][1])
	})
}
