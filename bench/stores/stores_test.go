// Package stores compares kept logs and stores for the leases: what they cost,
// and what is left of them when a file is damaged. It is a module of its own, so
// that usher's go.mod has none of them. It has tests only:
//
//	cd bench/stores && go test -v -bench . -timeout 90m .
//
// USHER_STORE=bbolt,pebble takes some of them, USHER_RECORDS and USHER_TRIALS are the numbers of records
// and of damages (for each of two ways to end); docs/lease-log.md says what came out.
package stores

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// store is what is asked of a candidate.
type store interface {
	// Commit returns when all of batch is on disk, or nothing of it will be. It does not keep batch.
	Commit(batch []record) error
	Close() error
}

// opener opens a store in a directory that is there, empty or not, and calls each with what is in it, oldest
// first: a log may call it for all versions of a key. What cannot be read but leaves the rest readable is left out.
// Key and Value are the caller's until each returns.
type opener func(dir string, each func(record)) (store, error)

// candidates are looked at in this order. To add one is to write an opener and a line here.
func candidates() []candidate {
	return []candidate{
		{"bbolt", openBolt},
		{"usher", openUsher},
		{"etcd-wal", openEtcd},
		{"raft-wal", openRaft},
		{"pebble", openPebble},
		{"badger", openBadger},
		{"tidwall", openTidwall},
	}
}

type candidate struct {
	name string
	open opener
}

// record is of one of two kinds, leases and the reports of the outbox.
type record struct {
	Kind       byte
	Key, Value []byte
}

const (
	kindLease  = 1
	kindReport = 2
	valueLen   = 150
)

// newRecord is the version of the record under number n: random bytes, and a
// checksum over all like that of a stored lease.
func newRecord(kind byte, n, version uint32) record {
	r := record{Kind: kind, Key: binary.BigEndian.AppendUint32(nil, n), Value: make([]byte, valueLen)}
	rnd := rand.New(rand.NewPCG(uint64(n)<<32|uint64(version), uint64(kind)))
	for i := 0; i < valueLen-4; i += 2 {
		binary.BigEndian.PutUint16(r.Value[i:], uint16(rnd.Uint32()))
	}
	binary.BigEndian.PutUint32(r.Value[valueLen-4:], r.sum())
	return r
}

func (r record) sum() uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(append(slices.Clone(r.Key), r.Kind), table), table, r.Value[:valueLen-4])
}

// whole reports whether r is as newRecord made one.
func (r record) whole() bool {
	return len(r.Key) == 4 && len(r.Value) == valueLen && r.sum() == binary.BigEndian.Uint32(r.Value[valueLen-4:])
}

// pack is a record as one entry, for logs that know no keys.
func (r record) pack() []byte {
	return append(append([]byte{r.Kind}, r.Key...), r.Value...)
}

func unpack(b []byte) record {
	if len(b) < 5 {
		return record{}
	}
	return record{Kind: b[0], Key: b[1:5], Value: b[5:]}
}

// The commits of the tests: groupLen records each, the last a report.
const groupLen = 10

func group(n int) (batch []record) {
	for i := range groupLen - 1 {
		batch = append(batch, newRecord(kindLease, uint32(n*groupLen+i), 0))
	}
	return append(batch, newRecord(kindReport, uint32(n*groupLen+groupLen-1), 0))
}

func forAll(t *testing.T, do func(t *testing.T, c candidate)) {
	chosen := strings.FieldsFunc(os.Getenv("USHER_STORE"), func(r rune) bool { return r == ',' })
	for _, c := range candidates() {
		if len(chosen) == 0 || slices.Contains(chosen, c.name) {
			t.Run(c.name, func(t *testing.T) { do(t, c) })
		}
	}
}

func number(t testing.TB, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err, name)
	return n
}

// size is what the files of a directory take on disk.
func size(t testing.TB, dir string) (bytes int64) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || d.IsDir() {
			return nil // removed meanwhile
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	}))
	return bytes
}
