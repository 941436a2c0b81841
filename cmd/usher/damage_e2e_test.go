package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

// keptLog is the log as a kill -9 left it, and what a crowd was told that is in it.
type keptLog struct {
	files map[string][]byte
	holds map[netip.Addr][]hold
	facts map[netip.Addr]fact
	from  map[netip.Addr]place // where the newest record of each address is
}

type place struct {
	file    string
	at, end int
}

// logHeader is how long the header of a file of the log is.
const logHeader = 64

// keepLog reads the log of an agent that was killed.
func (c *crowd) keepLog(t *testing.T, dir string) *keptLog {
	t.Helper()
	k := &keptLog{files: map[string][]byte{}, holds: c.holds, facts: map[netip.Addr]fact{}, from: map[netip.Addr]place{}}
	for ip, f := range c.facts {
		k.facts[ip] = *f
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries { // sorted: a snapshot comes before the files after it
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".log") && !strings.HasSuffix(e.Name(), ".snap") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		k.files[e.Name()] = b
		for _, f := range k.frames(e.Name()) {
			if ip, _, ok := f.lease(); ok {
				k.from[ip] = place{e.Name(), f.at, f.end}
			}
		}
	}
	for ip := range k.holds {
		require.Contains(t, k.from, ip)
	}
	return k
}

func (k *keptLog) frames(file string) []frame {
	all, _ := frames(k.files[file], logHeader)
	return all
}

// file returns the file of a kind with the most records.
func (k *keptLog) file(suffix string) (name string) {
	for n := range k.files {
		if strings.HasSuffix(n, suffix) && (name == "" || len(k.frames(n)) > len(k.frames(name))) {
			name = n
		}
	}
	return name
}

// next returns the name of a file after the newest one.
func (k *keptLog) next() string {
	var seq uint64
	for n := range k.files {
		var x uint64
		_, _ = fmt.Sscanf(n, "%d-", &x)
		seq = max(seq, x)
	}
	return fmt.Sprintf("%020d-1f2e3d4c5b6a7988.log", seq+1)
}

// forget returns what the crowd may expect of a log of which these bytes are damaged, and whose records were there.
func (k *keptLog) forget(file string, from, to int) (holds map[netip.Addr][]hold, facts map[netip.Addr]*fact, hit []netip.Addr) {
	holds, facts = map[netip.Addr][]hold{}, map[netip.Addr]*fact{}
	for ip, p := range k.from {
		if p.file == file && p.at < to && from < p.end {
			hit = append(hit, ip)
		}
	}
	for ip, list := range k.holds {
		if !slices.Contains(hit, ip) {
			holds[ip] = slices.Clone(list)
		}
	}
	for ip, f := range k.facts {
		if !slices.Contains(hit, ip) {
			facts[ip] = &fact{port: f.port, sure: f.sure, maybe: slices.Clone(f.maybe)}
		} else {
			facts[ip] = &fact{port: f.port}
		}
	}
	return holds, facts, hit
}

// putLog makes these the files of the log.
func putLog(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Mkdir(dir, 0o750))
	for name, b := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
}

// damage is what happens to one file of a log.
type damage struct {
	name     string
	log      *keptLog
	file     string
	from, to int // what is changed
	do       func(b []byte) []byte
	silent   bool // nothing is lost that anybody could know of
}

// damagesOf returns damages of all kinds at a record of a file, and those of whole files.
func damagesOf(k *keptLog, suffix string, pick func(n int) int) (at []damage) {
	file := k.file(suffix)
	all := k.frames(file)
	// What is behind the damage tells it from what a kill leaves at the end of a file.
	f := all[pick(len(all)*3/4)]
	page := os.Getpagesize()
	zeros := (f.at/page + 1) * page
	size := len(k.files[file])
	what := "a file of changes"
	if suffix == ".snap" {
		what = "the snapshot"
	}
	middle := (f.at + f.end) / 2
	flip := func(at int, bit byte) func(b []byte) []byte {
		return func(b []byte) []byte {
			b[at] ^= bit
			return b
		}
	}
	return []damage{
		{name: what + ": a bit in a record", log: k, file: file, from: f.at, to: f.end, do: flip(middle, 0x10)},
		{name: what + ": the length of a record", log: k, file: file, from: f.at, to: f.end, do: flip(f.at+10, 1)},
		{name: what + ": cut within a record", log: k, file: file, from: f.at, to: size, do: func(b []byte) []byte { return b[:middle] }},
		{name: what + ": zeros over a page", log: k, file: file, from: zeros, to: zeros + page, do: func(b []byte) []byte {
			clear(b[zeros : zeros+page])
			return b
		}},
		{name: what + ": empty", log: k, file: file, to: size, do: func([]byte) []byte { return nil }},
	}
}

// Whatever is wrong with the log of the leases, the program is ready and answers within seconds, says what it lost and keeps the evidence, has every lease
// whose record is whole, and ends when it is told to.
func TestKernelDamagedLog(t *testing.T) {
	const limit = 5 * time.Second
	w := worldWithoutRelay(t, crowdOptions(60))
	c := newCrowd(t, w, 600, 0, 1)
	c.retry = time.Second
	guests := c.guests()
	dir := filepath.Join(w.Dir, "state", "leases")
	fill := func(clients ...*crowdClient) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		require.NoError(t, c.let(ctx, c.discover, clients...))
	}
	require.NoError(t, w.StartAgent(t.Context()))
	fill(append(slices.Clone(guests[:200]), c.customers()[:20]...)...)
	c.check(t, w) // the ERP has the reports
	w.Agent.Kill()
	changes := c.keepLog(t, dir)

	// The header of a file says nothing that its name does not, but it makes a snapshot due.
	first := changes.file(".log")
	flipped := maps.Clone(changes.files)
	flipped[first] = bytes.Clone(flipped[first])
	flipped[first][20] ^= 1
	putLog(t, dir, flipped)
	require.NoError(t, w.StartAgent(t.Context()))
	eventually(t, 20*time.Second, "a snapshot takes the place of the damaged file", func() (bool, error) {
		_, err := os.Lstat(filepath.Join(dir, first))
		return os.IsNotExist(err), nil
	})
	changes.holds, _, _ = changes.forget("", 0, 0)
	fill(guests[200:240]...)
	w.Agent.Kill()
	snapshot := c.keepLog(t, dir)
	require.NotEmpty(t, snapshot.file(".snap"))

	middle := func(n int) int { return n * 2 / 3 }
	cases := append(damagesOf(changes, ".log", middle), damagesOf(snapshot, ".snap", middle)...)
	rubbish := make([]byte, 100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range rubbish {
		rubbish[i] = byte(rng.Uint32())
	}
	beside := func(name, file string, b []byte, silent bool) damage {
		return damage{name: name, log: changes, file: file, do: func([]byte) []byte { return b }, silent: silent}
	}
	cases = append(cases,
		beside("a file of rubbish beside", "notes.txt", rubbish, true),
		beside("a file of rubbish with a name of the log's", changes.next(), rubbish, false),
		beside("an empty file with a name of the log's", changes.next(), nil, false),
	)
	for range long.Times(t, 0, 4) {
		for _, x := range [][]damage{damagesOf(changes, ".log", rng.IntN), damagesOf(snapshot, ".snap", rng.IntN)} {
			cases = append(cases, x[:4]...)
		}
	}
	next := 240
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			files := maps.Clone(x.log.files)
			files[x.file] = x.do(bytes.Clone(files[x.file]))
			putLog(t, dir, files)
			var hit []netip.Addr
			c.holds, c.facts, hit = x.log.forget(x.file, x.from, x.to)
			whole := len(c.holds)

			began := time.Now()
			defer func() { w.Agent.Kill() }() // it has ended, unless something is wrong
			require.NoError(t, w.StartAgent(t.Context()))
			ready := time.Since(began)
			ctx, cancel := context.WithDeadline(t.Context(), began.Add(limit))
			defer cancel()
			guest := guests[next]
			next++
			require.NoError(t, c.let(ctx, c.discover, guest), "ready and answers within %v", limit)
			answered := time.Since(began)
			require.True(t, guest.ip.IsValid())
			n, _ := c.check(t, w)
			require.GreaterOrEqual(t, n, whole, "every lease whose record is whole, and the new one")

			var near []*crowdClient // whose records are around the damage
			for _, g := range guests[:200] {
				if p := x.log.from[g.ip]; len(c.holds[g.ip]) > 0 && p.file == x.file && p.end > x.from-1000 && p.at < x.to+1000 && len(near) < 20 {
					near = append(near, g)
				}
			}
			near = append(near, guests[:5]...)
			near = slices.DeleteFunc(near, func(g *crowdClient) bool { return len(c.holds[g.ip]) == 0 })
			had := map[*crowdClient]netip.Addr{}
			for _, g := range near {
				had[g] = g.ip
			}
			ctx, cancel = context.WithTimeout(t.Context(), limit)
			defer cancel()
			require.NoError(t, c.let(ctx, c.renew, near...))
			for g, ip := range had {
				require.Equal(t, ip, g.ip, "it renews its lease")
			}
			require.Empty(t, c.faults)

			out, err := exec.Command(program(t), "status", "--socket", w.Socket()).CombinedOutput()
			text := string(out)
			require.NoError(t, err, text)
			if x.silent {
				assert.NotContains(t, text, "could not be read")
			} else {
				assert.Regexp(t, `[1-9][0-9]* records? on disk could not be read`, text, "it says what is lost")
				assert.Contains(t, text, x.file)
				kept, err := os.ReadFile(filepath.Join(dir, "damaged", x.file))
				require.NoError(t, err)
				assert.True(t, bytes.Equal(files[x.file], kept), "the evidence is as it was")
			}
			if len(hit) == 1 {
				assert.Contains(t, text, hit[0].String(), "whose lease it was")
			}
			assert.NotContains(t, w.Agent.Log(), "panic")
			t.Logf("ready after %v, answers after %v; %d leases of pools, %d records damaged", ready, answered, n, len(hit))

			stop := func() {
				began := time.Now()
				require.NoError(t, w.Agent.Signal(syscall.SIGTERM))
				select {
				case <-w.Agent.Done():
				case <-time.After(limit):
					require.Fail(t, "it does not end")
				}
				require.Less(t, time.Since(began), limit)
				_, err := os.Lstat(w.Socket())
				require.ErrorIs(t, err, fs.ErrNotExist, "the control socket is gone")
			}
			stop()
			for range long.Times(t, 0, 1) { // what the first start made of it
				require.NoError(t, w.StartAgent(t.Context()))
				again, _ := c.check(t, w)
				require.Equal(t, n, again)
				stop()
			}
		})
	}
}
