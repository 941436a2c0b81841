package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
)

// oldState writes the database of the version before the log: so many leases of the crowd's large pool, in several rounds so that there are
// free pages, and MAC reports for these addresses. The forms are those that provision/lease has in encoding.go and report.go.
func oldState(t *testing.T, leases int, reports []netip.Addr) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
	require.NoError(t, err)
	now := time.Now()
	for round := range 4 {
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{"leases", "mac_reports", "format"} {
				_, err := tx.CreateBucketIfNotExists([]byte(name))
				require.NoError(t, err)
			}
			for i := range leases {
				if round == 0 || i%5 == round {
					ip := oldLeaseIP(i)
					require.NoError(t, tx.Bucket([]byte("leases")).Put(ip.AsSlice(), oldLease(ip, oldLeaseMAC(i), now.Add(time.Duration(round)*time.Second))))
				}
			}
			for i, ip := range reports {
				m := oldReportMAC(i)
				v := append([]byte{1}, m[:]...)
				v = binary.BigEndian.AppendUint64(v, 0)
				require.NoError(t, tx.Bucket([]byte("mac_reports")).Put(ip.AsSlice(), binary.BigEndian.AppendUint64(v, uint64(now.UnixNano()))))
			}
			mark := fmt.Appendf(nil, "2 %08x", crc32.Checksum([]byte("2"), crc32.MakeTable(crc32.Castagnoli)))
			return tx.Bucket([]byte("format")).Put([]byte("state"), mark)
		}))
	}
	require.NoError(t, db.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func oldLeaseIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 64, byte(1 + i>>8), byte(i)}) }

func oldLeaseMAC(i int) provision.MAC {
	return provision.MAC{0x0a, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
}

// oldReportMAC is nobody's who has a lease: of such a one it is not reported.
func oldReportMAC(i int) provision.MAC { return provision.MAC{0x0a, 0, 1, 0, byte(i >> 8), byte(i)} }

// oldLease is a record of version 2: with a pool, without a vacant line.
func oldLease(ip netip.Addr, mac provision.MAC, renewed time.Time) []byte {
	v := append([]byte{2, 1}, mac[:]...) // bound
	v = append(v, make([]byte, 8+8+4)...)
	v = append(v, netip.MustParseAddr(manyGateway).AsSlice()...)
	v = append(v, 0, 0, 0, 0)
	for _, at := range []time.Time{renewed, renewed, renewed.Add(manyLease)} {
		v = binary.BigEndian.AppendUint64(v, uint64(at.UnixMilli()))
	}
	for _, text := range []string{"access", "", "", manyPool} {
		v = append(binary.BigEndian.AppendUint16(v, uint16(len(text))), text...)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	return binary.BigEndian.AppendUint32(v, crc32.Update(crc32.Checksum(ip.AsSlice(), table), table, v))
}

// leasedOld counts the leases of the old database that the agent knows.
func (w *world) leasedOld(t *testing.T, leases int) (n int) {
	t.Helper()
	v, err := w.Client.Pools(t.Context(), manyPool)
	require.NoError(t, err)
	holders := map[netip.Addr]provision.Owner{}
	for _, a := range v.Addresses {
		if a.State == "leased" {
			holders[a.IP] = a.Holder
		}
	}
	for i := range leases {
		if have, ok := holders[oldLeaseIP(i)]; ok {
			require.Equal(t, oldLeaseMAC(i).Owner(), have)
			n++
		}
	}
	return n
}

// putOldState gives a world an old database and nothing else.
func (w *world) putOldState(t *testing.T, file []byte) string {
	t.Helper()
	state := filepath.Join(w.Dir, "state")
	require.NoError(t, os.RemoveAll(state))
	require.NoError(t, os.Mkdir(state, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(state, "state.db"), file, 0o600))
	return state
}

// Whatever is wrong with the database of a version before, the program is ready and answers within seconds, says what it lost, ends when it
// is told to, and leaves nothing behind.
func TestKernelDamagedOldState(t *testing.T) {
	const leases, limit = 600, 5 * time.Second
	w := worldWithoutRelay(t, crowdOptions(60))
	c := newCrowd(t, w, 300, 0, 1)
	c.retry = time.Second
	good := oldState(t, leases, nil)
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
	free, leaf := find(0x10), find(2)
	change := func(do func(b []byte)) []byte {
		b := bytes.Clone(good)
		do(b)
		return b
	}
	flip := func(at int, bit byte) []byte { return change(func(b []byte) { b[at] ^= bit }) }
	next := 0
	for _, x := range []struct {
		name   string
		file   []byte
		leases int  // at least
		said   bool // that it is damaged, also where nothing is lost by it
	}{
		{"whole", good, leases, false},
		{"list of free pages: an entry", flip(free+16, 1), leases, false},
		{"list of free pages: its length", flip(free+10, 0x40), leases, false},
		{"list of free pages: its kind", flip(free+8, 2), leases, false},
		{"branches that lead to themselves", change(func(b []byte) { // all: the first may be one that is not used any more
			for at := 2 * page; at < len(b); at += page {
				for i := range int(binary.NativeEndian.Uint16(b[at+10:])) {
					if binary.NativeEndian.Uint16(b[at+8:]) == 1 {
						binary.NativeEndian.PutUint64(b[at+16+16*i+8:], binary.NativeEndian.Uint64(b[at:]))
					}
				}
			}
		}), leases, true},
		{"a leaf of rubbish", change(func(b []byte) {
			for i := range page {
				b[leaf+i] = 0xff
			}
		}), leases / 2, true},
		{"a leaf that counts too much", flip(leaf+11, 0xff), leases / 2, true},
		{"cut in half", good[:len(good)/2], 0, true},
		{"cut to one byte", good[:1], 0, true},
		{"empty", nil, 0, true},
		{"zeros", make([]byte, 64<<10), 0, true},
		{"no database", bytes.Repeat([]byte("state"), 10000), 0, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			state := w.putOldState(t, x.file)
			for life := range 2 { // the second start finds what the first made of it
				began := time.Now()
				require.NoError(t, w.StartAgent(t.Context()))
				ctx, cancel := context.WithDeadline(t.Context(), began.Add(limit))
				guest := c.clients[next]
				next++
				require.NoError(t, c.let(ctx, c.discover, guest), "ready and answers within %v", limit)
				cancel()
				require.True(t, guest.ip.IsValid())
				took := time.Since(began)
				n := w.leasedOld(t, leases)
				assert.GreaterOrEqual(t, n, x.leases)
				out, err := exec.Command(program(t), "status", "--socket", w.Socket()).CombinedOutput()
				text := string(out)
				assert.NoError(t, err, text)
				if life == 0 {
					t.Logf("%d of %d leases, answered after %v", n, leases, took)
					if x.said || n < leases {
						assert.Contains(t, text, "could not be read", "it says what is lost")
						assert.Contains(t, text, "state.db")
					} else {
						assert.NotContains(t, w.Agent.Log(), "panic")
					}
				}
				began = time.Now()
				require.NoError(t, w.Agent.Signal(syscall.SIGTERM))
				select {
				case <-w.Agent.Done():
				case <-time.After(limit):
					require.Fail(t, "it does not end")
				}
				assert.Less(t, time.Since(began), limit)
				_, err = os.Lstat(w.Socket())
				require.ErrorIs(t, err, fs.ErrNotExist, "the control socket is gone")
			}
			kept, err := filepath.Glob(filepath.Join(state, "state.db.*"))
			require.NoError(t, err)
			require.Len(t, kept, 1)
			b, err := os.ReadFile(kept[0])
			require.NoError(t, err)
			require.True(t, bytes.Equal(x.file, b), "the evidence is as it was")
		})
	}
}

// However often the agent is killed while it moves the leases and reports of an old database into the log, none is lost.
func TestKernelKilledWhileItMovesOldState(t *testing.T) {
	t.Parallel()
	const leases = 20_000
	w := worldWithoutRelay(t, crowdOptions(120))
	newCrowd(t, w, 1, 0, 1)
	var reported []netip.Addr
	for _, target := range relayTargets(w.ERP) {
		reported = append(reported, target.ip)
	}
	require.Greater(t, len(reported), 50)
	old := oldState(t, leases, reported)
	rng := rand.New(rand.NewPCG(5, 6))
	kills, unmoved, half := 0, 0, 0
	for range long.Times(t, 2, 60) {
		for _, ip := range reported {
			require.NoError(t, w.ERP.SetIPMAC(ip, [6]byte{}))
		}
		state := w.putOldState(t, old)
		for range 1 + rng.IntN(4) {
			p, err := w.Router.Start(w.Program, "run", "--config", w.ConfigPath())
			require.NoError(t, err)
			limit := time.Duration(5+rng.IntN(150)) * time.Millisecond
			if kills%2 == 0 { // soon after it has begun to write
				ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
				<-appears(ctx, filepath.Join(state, "leases", "*.log"))
				done()
				limit = time.Duration(rng.IntN(60)) * time.Millisecond
			}
			ctx, done := context.WithTimeout(t.Context(), limit)
			<-ctx.Done()
			done()
			p.Kill()
			kills++
			if aside, _ := filepath.Glob(filepath.Join(state, "state.db.*")); len(aside) == 0 {
				unmoved++
				if begun, _ := filepath.Glob(filepath.Join(state, "leases", "*.log")); len(begun) > 0 {
					half++
				}
			}
		}
		require.NoError(t, w.StartAgent(t.Context()))
		require.Equal(t, leases, w.leasedOld(t, leases))
		require.NoError(t, miniature.Until(t.Context(), 30*time.Second, "every report reaches the ERP", func() (bool, error) {
			for i, ip := range reported {
				if erpMAC(w.ERP, ip) != oldReportMAC(i).String() {
					return false, nil
				}
			}
			return true, nil
		}))
		w.Agent.Kill()
	}
	t.Logf("%d kills, %d before the file was put aside, %d of them when the log had been begun", kills, unmoved, half)
}
