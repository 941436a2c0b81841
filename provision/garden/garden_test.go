package garden

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/statedir"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func nets(texts ...string) []netip.Prefix {
	out := []netip.Prefix{}
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestRefusal(t *testing.T) {
	refuse, own := nets("198.51.100.0/24"), addrs("192.0.2.1")
	for addr, want := range map[string]Refusal{
		"203.0.113.10":    "",
		"8.8.8.8":         "",
		"100.63.255.255":  "",
		"100.128.0.1":     "",
		"172.32.0.1":      "",
		"198.51.100.17":   RefusedSubscriber,
		"192.0.2.1":       RefusedOwn,
		"192.0.2.2":       "",
		"0.0.0.0":         RefusedSpecial,
		"0.1.2.3":         RefusedSpecial,
		"127.0.0.53":      RefusedSpecial,
		"169.254.169.254": RefusedSpecial,
		"224.0.0.1":       RefusedSpecial,
		"239.255.255.255": RefusedSpecial,
		"240.0.0.1":       RefusedSpecial,
		"255.255.255.255": RefusedSpecial,
		"10.1.2.3":        RefusedPrivate,
		"172.16.0.1":      RefusedPrivate,
		"192.168.1.1":     RefusedPrivate,
		"100.64.0.1":      RefusedPrivate,
		"100.127.255.255": RefusedPrivate,
	} {
		assert.Equal(t, want, refusal(netip.MustParseAddr(addr), refuse, own), addr)
	}
}

func TestJudge(t *testing.T) {
	good, bad := judge(addrs("203.0.113.9", "::ffff:203.0.113.8", "2001:db8::1", "203.0.113.9", "10.0.0.1"), nil, nil)
	require.Equal(t, addrs("203.0.113.8", "203.0.113.9"), good)
	require.Equal(t, map[netip.Addr]Refusal{netip.MustParseAddr("10.0.0.1"): RefusedPrivate}, bad)

	var flood []netip.Addr
	for i := range 1000 {
		flood = append(flood, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
	}
	good, bad = judge(flood, nil, nil)
	require.Len(t, good, maxPerAnswer)
	require.Len(t, bad, 1000-maxPerAnswer)
	for _, why := range bad {
		require.Equal(t, RefusedExcess, why)
	}
}

func TestDisjoint(t *testing.T) {
	for name, tt := range map[string]struct{ in, want []netip.Prefix }{
		"nothing":          {nil, nets()},
		"sorted":           {nets("203.0.113.0/24", "192.0.2.0/24"), nets("192.0.2.0/24", "203.0.113.0/24")},
		"twice":            {nets("192.0.2.1/32", "192.0.2.1/32"), nets("192.0.2.1/32")},
		"covered":          {nets("192.0.2.77/32", "192.0.2.0/24", "192.0.2.64/26"), nets("192.0.2.0/24")},
		"neighbours stay":  {nets("192.0.2.0/25", "192.0.2.128/25"), nets("192.0.2.0/25", "192.0.2.128/25")},
		"same first, wide": {nets("192.0.2.0/25", "192.0.2.0/24"), nets("192.0.2.0/24")},
	} {
		t.Run(name, func(t *testing.T) { require.ElementsMatch(t, tt.want, disjoint(tt.in)) })
	}
}

// The answers of a name rotate: all of them stay while they are young, and the
// oldest make room for new ones.
func TestAnswersAddUpWithinBounds(t *testing.T) {
	e, now := &entry{}, time.Unix(1_700_000_000, 0)
	for round := range 20 {
		var good []netip.Addr
		for i := range maxPerAnswer {
			good = append(good, netip.AddrFrom4([4]byte{203, 0, byte(round), byte(i)}))
		}
		now = now.Add(time.Minute)
		e.answered(good, now)
		e.expire(now, time.Hour)
	}
	require.Len(t, e.seen, maxPerName)
	require.Contains(t, e.seen, netip.AddrFrom4([4]byte{203, 0, 19, 0}), "the newest")
	require.NotContains(t, e.seen, netip.AddrFrom4([4]byte{203, 0, 0, 0}), "the oldest")
}

// zone is a DNS whose answers the test sets.
type zone struct {
	mu      sync.Mutex
	answers map[string][]netip.Addr
	err     error
	hang    bool
	asked   int
	most    int // look-ups at once
	now     int
}

func (z *zone) set(name string, answer ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.answers == nil {
		z.answers = map[string][]netip.Addr{}
	}
	z.answers[name] = addrs(answer...)
}

func (z *zone) fail(err error) { z.mu.Lock(); defer z.mu.Unlock(); z.err = err }

func (z *zone) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked++
	z.now++
	z.most = max(z.most, z.now)
	answer, err, hang := z.answers[name], z.err, z.hang
	z.mu.Unlock()
	defer func() { z.mu.Lock(); z.now--; z.mu.Unlock() }()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(10 * time.Millisecond)
	return answer, err
}

// counts is an Observer.
type counts struct {
	mu      sync.Mutex
	lookups map[Result]int
	refused map[Refusal]int
	size    [3]int
}

func newCounts() *counts { return &counts{lookups: map[Result]int{}, refused: map[Refusal]int{}} }

func (c *counts) GardenLookup(r Result)   { c.mu.Lock(); defer c.mu.Unlock(); c.lookups[r]++ }
func (c *counts) GardenRefused(r Refusal) { c.mu.Lock(); defer c.mu.Unlock(); c.refused[r]++ }
func (c *counts) GardenSize(names, failing, addresses int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = [3]int{names, failing, addresses}
}

func (c *counts) now() ([3]int, map[Result]int, map[Refusal]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size, maps.Clone(c.lookups), maps.Clone(c.refused)
}

func newResolver(t testing.TB, opts Options, lookup Lookup, own func() []netip.Addr, path string, obs Observer, log *slog.Logger) *Resolver {
	t.Helper()
	r, err := New(opts, lookup, own, path, obs, log)
	require.NoError(t, err)
	return r
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// start runs a resolver until the test ends.
func start(t *testing.T, r *Resolver) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

const pay = "pay.example.net"

func TestALifeOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z, c := &zone{}, newCounts()
		z.set(pay, "203.0.113.10", "127.0.0.1")
		opts := Options{
			Paused: List{Prefixes: nets("192.0.2.0/24"), Names: []string{pay}},
			Guests: List{Prefixes: nets("203.0.113.0/28")},
			Refuse: nets("198.51.100.0/24"), Interval: time.Minute, Keep: time.Hour,
		}
		r := newResolver(t, opts, z.lookup, nil, "", c, quiet())
		require.Equal(t, nets("192.0.2.0/24"), r.Paused(), "what is configured is there at once")
		updates := r.Updates()
		start(t, r)
		<-updates
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.10/32"), r.Paused())
		require.Equal(t, nets("203.0.113.0/28"), r.Guests())
		_, _, refused := c.now()
		require.Equal(t, 1, refused[RefusedSpecial])

		z.set(pay, "203.0.113.20")
		<-updates
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.10/32", "203.0.113.20/32"), r.Paused(), "the old address stays for a while")

		z.fail(errors.New("timeout"))
		time.Sleep(30 * time.Minute)
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.10/32", "203.0.113.20/32"), r.Paused())
		size, _, _ := c.now()
		require.Equal(t, [3]int{1, 1, 2}, size)
		require.Equal(t, "timeout", r.Status().Names[0].Error)
		time.Sleep(2 * time.Hour)
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.20/32"), r.Paused(), "what the newest answer had stays as long as the DNS is down")

		z.fail(&net.DNSError{IsNotFound: true})
		time.Sleep(2 * time.Hour)
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.20/32"), r.Paused(), "also when the name is gone")
		_, lookups, _ := c.now()
		require.Positive(t, lookups[ResultEmpty])

		z.fail(nil)
		z.set(pay, "198.51.100.17", "10.0.0.1")
		time.Sleep(2 * time.Hour)
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.20/32"), r.Paused(), "a poisoned answer opens nothing and takes nothing away")
		require.Equal(t, []Refused{{addrs("10.0.0.1")[0], RefusedPrivate}, {addrs("198.51.100.17")[0], RefusedSubscriber}}, r.Status().Names[0].Refused)

		z.set(pay, "203.0.113.30")
		<-updates
		time.Sleep(2 * time.Hour)
		require.Equal(t, nets("192.0.2.0/24", "203.0.113.30/32"), r.Paused())
		require.Empty(t, r.Status().Names[0].Error)
		size, _, _ = c.now()
		require.Equal(t, [3]int{1, 0, 1}, size)
	})
}

// An answer opens nobody to whom the ERP gives the address, wherever that is; a row typed later takes no payment site away.
func TestNoAnswerOpensACustomerOfTheERP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		bound := func(netip.Addr) bool { return true } // whatever is said before anybody knows
		known := false
		say := func(of ...string) {
			mu.Lock()
			defer mu.Unlock()
			known = true
			bound = func(a netip.Addr) bool { return slices.Contains(addrs(of...), a) }
		}
		z, c := &zone{}, newCounts()
		z.set(pay, "203.0.113.10", "203.0.113.66")
		r := newResolver(t, Options{Paused: List{Names: []string{pay}}, Interval: time.Minute, Keep: time.Hour, Bound: func() func(netip.Addr) bool {
			mu.Lock()
			defer mu.Unlock()
			if !known {
				return nil
			}
			return bound
		}}, z.lookup, nil, "", c, quiet())
		start(t, r)
		time.Sleep(time.Second)
		require.Equal(t, nets("203.0.113.10/32", "203.0.113.66/32"), r.Paused(), "nobody is blocked yet")
		say("203.0.113.66")
		time.Sleep(2 * time.Minute)
		require.Equal(t, nets("203.0.113.10/32"), r.Paused(), "what came before the bindings is judged by them")
		require.Equal(t, []Refused{{addrs("203.0.113.66")[0], RefusedSubscriber}}, r.Status().Names[0].Refused)

		z.set(pay, "203.0.113.10", "203.0.113.67")
		time.Sleep(2 * time.Minute)
		say("203.0.113.66", "203.0.113.10")
		time.Sleep(3 * time.Hour)
		require.Equal(t, nets("203.0.113.10/32", "203.0.113.67/32"), r.Paused(), "the name had it before the ERP gave it to somebody")
		z.set(pay, "203.0.113.66")
		time.Sleep(3 * time.Hour)
		require.NotContains(t, r.Paused(), nets("203.0.113.66/32")[0])
		require.NotEmpty(t, r.Status().Names[0].Error)
		_, _, refused := c.now()
		require.Positive(t, refused[RefusedSubscriber])
	})
}

func TestFailuresAreTriedAgainSoonAndThenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{err: errors.New("refused")}
		r := newResolver(t, Options{Paused: List{Names: []string{pay}}, Interval: 10 * time.Minute}, z.lookup, nil, "", nil, quiet())
		start(t, r)
		time.Sleep(time.Minute)
		asked := func() int { z.mu.Lock(); defer z.mu.Unlock(); return z.asked }
		first := asked()
		require.Equal(t, 4, first, "at 0, 5, 15 and 35 s")
		time.Sleep(24 * time.Hour)
		require.InDelta(t, 144, asked()-first, 20, "every ten minutes")
	})
}

// A name server that never answers blocks nobody, and only a few look-ups wait.
func TestAHangingNameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{hang: true}
		var names []string
		for i := range 50 {
			names = append(names, fmt.Sprintf("n%d.example.net", i))
		}
		r := newResolver(t, Options{Guests: List{Prefixes: nets("192.0.2.0/24"), Names: names}}, z.lookup, nil, "", nil, quiet())
		start(t, r)
		time.Sleep(10 * time.Minute)
		began := time.Now()
		require.Equal(t, nets("192.0.2.0/24"), r.Guests())
		require.Len(t, r.Status().Names, 50)
		r.Reconfigure(Options{}, z.lookup)
		require.Empty(t, r.Guests())
		require.Zero(t, time.Since(began), "nobody waits")
		z.mu.Lock()
		defer z.mu.Unlock()
		require.LessOrEqual(t, z.most, lookupsAtOnce)
	})
}

func TestReconfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.set(pay, "203.0.113.10", "203.0.113.11")
		z.set("bank.example.net", "203.0.113.40")
		r := newResolver(t, Options{Paused: List{Names: []string{pay}}}, z.lookup, nil, "", nil, quiet())
		updates := r.Updates()
		start(t, r)
		<-updates

		r.Reconfigure(Options{Paused: List{Names: []string{pay}}, Guests: List{Names: []string{"bank.example.net", pay}}, Refuse: nets("203.0.113.11/32")}, z.lookup)
		<-updates
		require.Equal(t, nets("203.0.113.10/32"), r.Paused(), "a network that is served now is out at once")
		synctest.Wait()
		time.Sleep(time.Second)
		require.Equal(t, nets("203.0.113.10/32", "203.0.113.40/32"), r.Guests(), "a new name is looked up at once")

		r.Reconfigure(Options{Guests: List{Names: []string{"bank.example.net"}}}, z.lookup)
		require.Empty(t, r.Paused())
		require.Equal(t, nets("203.0.113.40/32"), r.Guests(), "what is known stays over a reload")
	})
}

func TestTheFileSurvivesARestartWithTheDNSDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "garden.json")
	opts := Options{Paused: List{Names: []string{pay, "gone.example.net"}}}
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.set(pay, "203.0.113.10")
		z.set("gone.example.net", "203.0.113.11")
		r := newResolver(t, opts, z.lookup, nil, path, nil, quiet())
		start(t, r)
		time.Sleep(time.Minute)
	})
	synctest.Test(t, func(t *testing.T) {
		down := &zone{err: errors.New("down")}
		opts := Options{Paused: List{Names: []string{pay}}, Refuse: nets("198.51.100.0/24")}
		r := newResolver(t, opts, down.lookup, nil, path, nil, quiet())
		require.Equal(t, nets("203.0.113.10/32"), r.Paused())
		start(t, r)
		time.Sleep(24 * time.Hour)
		require.Equal(t, nets("203.0.113.10/32"), r.Paused())
	})
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(data), "gone.example.net", "names that are no longer configured leave the file")
	require.NoFileExists(t, path+".tmp")
}

func TestABadFileIsNoTrouble(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"no JSON":       "{",
		"other version": `{"version":0,"names":{}}`,
		"bad address":   `{"version":1,"names":{"pay.example.net":{"good":"2026-01-01T00:00:00Z","addresses":{"x":"2026-01-01T00:00:00Z"}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "garden.json")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			var log strings.Builder
			r := newResolver(t, Options{Paused: List{Names: []string{pay}}}, (&zone{}).lookup, nil, path, nil, slog.New(slog.NewTextHandler(&log, nil)))
			require.Empty(t, r.Paused())
			require.Contains(t, log.String(), path)
			require.Contains(t, log.String(), "; kept as garden.json.bad")
			require.Contains(t, r.Status().Unread, "; kept as garden.json.bad")
			require.NoError(t, os.Mkdir(path, 0o700))
			r.save()
			require.NotEmpty(t, r.Status().StoreError)
			require.NoError(t, os.Remove(path))
			r.save()
			require.Empty(t, r.Status().StoreError)
			kept, err := os.ReadFile(path + ".bad")
			require.NoError(t, err)
			require.Equal(t, text, string(kept))
		})
	}
	path := filepath.Join(t.TempDir(), "garden.json")
	require.NoError(t, os.WriteFile(path, []byte(
		`{"version":1,"names":{"pay.example.net":{"good":"2026-01-01T00:00:00Z","addresses":{"127.0.0.1":"2026-01-01T00:00:00Z","2001:db8::1":"2026-01-01T00:00:00Z","203.0.113.9":"2026-01-01T00:00:00Z"}}}}`), 0o600))
	r := newResolver(t, Options{Paused: List{Names: []string{pay}}}, (&zone{}).lookup, nil, path, nil, quiet())
	require.Equal(t, nets("203.0.113.9/32"), r.Paused(), "the file is trusted no more than an answer")
}

// Evidence is kept, also when the file is damaged again, and however large it is.
func TestTwoDamagedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "garden.json")
	for _, name := range []string{".bad", ".bad.2", ".bad.3"} {
		require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
		if name == ".bad.3" {
			require.NoError(t, os.Truncate(path, 1<<40))
		}
		newResolver(t, Options{Paused: List{Names: []string{pay}}}, (&zone{}).lookup, nil, path, nil, quiet())
		require.NoError(t, store(path).save([]byte("{}")))
	}
	for _, name := range []string{".bad", ".bad.2"} {
		kept, err := os.ReadFile(path + name)
		require.NoError(t, err)
		require.Equal(t, name, string(kept))
	}
	info, err := os.Stat(path + ".bad.3")
	require.NoError(t, err)
	require.Equal(t, int64(1<<40), info.Size())
}

// A file of a newer usher is neither used nor replaced.
func TestANewerFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "garden.json")
	const text = `{"version":2,"names":{}}`
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	_, err := New(Options{Paused: List{Names: []string{pay}}}, (&zone{}).lookup, nil, path, nil, quiet())
	require.ErrorAs(t, err, new(*statedir.NewerError))
	require.ErrorContains(t, err, path+" has format 2, this usher reads up to 1: a newer usher wrote it")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, string(data))
}

// What the version before wrote is read, and written again byte for byte.
func TestTheFileOfTheVersionBefore(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "garden1.json"))
	require.NoError(t, err)
	names, err := decode("garden1.json", data)
	require.NoError(t, err)
	require.Len(t, names, 1)
	again, err := encode(names)
	require.NoError(t, err)
	require.Equal(t, string(data), string(again))
}

func TestADiskThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.set(pay, "203.0.113.10")
		r := newResolver(t, Options{Paused: List{Names: []string{pay}}}, z.lookup, nil, filepath.Join(t.TempDir(), "none", "garden.json"), nil, quiet())
		start(t, r)
		time.Sleep(time.Minute)
		require.Equal(t, nets("203.0.113.10/32"), r.Paused())
	})
}

// ServerLookup asks the server that it was given, for A records, with no search list.
func TestServerLookup(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer conn.Close()
	asked := make(chan []byte, 4)
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q := append([]byte(nil), buf[:n]...)
			asked <- q
			_, _ = conn.WriteTo(answerA(q, netip.MustParseAddr("203.0.113.77")), from)
		}
	}()
	look := ServerLookup([]netip.AddrPort{netip.MustParseAddrPort(conn.LocalAddr().String())})
	got, err := look(t.Context(), pay)
	require.NoError(t, err)
	require.Equal(t, addrs("203.0.113.77"), got)
	require.Contains(t, string(<-asked), "\x03pay\x07example\x03net\x00\x00\x01\x00\x01")
	require.Empty(t, asked, "one question")
}

// answerA answers a question with one A record (RFC 1035 section 4).
func answerA(q []byte, a netip.Addr) []byte {
	end := 12
	for q[end] != 0 {
		end += 1 + int(q[end])
	}
	end += 5
	out := append([]byte{}, q[:end]...)
	out[2], out[3] = 0x81, 0x80
	out[6], out[7], out[8], out[9], out[10], out[11] = 0, 1, 0, 0, 0, 0
	out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
	return append(out, a.AsSlice()...)
}

// FuzzDecode: no file makes the reader panic, and what it takes can be written again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"names":{"pay.example.net":{"good":"2026-01-01T00:00:00Z","addresses":{"203.0.113.9":"2026-01-01T00:00:00Z"}}}}`))
	f.Add([]byte(`{"version":1,"names":{"":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := decode("garden.json", data)
		if err != nil {
			return
		}
		for _, e := range names {
			for a := range e.seen {
				require.True(t, a.Is4())
			}
		}
		again, err := encode(names)
		if err == nil { // years beyond 9999 are no JSON times
			require.True(t, json.Valid(again))
		}
	})
}

// A save that fails leaves the file as it was: the new one is written beside it, and takes its place when all of it is on disk.
func TestAFailedSaveLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "garden.json")
	require.NoError(t, store(path).save([]byte("old")))
	require.NoError(t, os.Symlink("/dev/full", path+".tmp"))
	require.ErrorIs(t, store(path).save([]byte("new")), syscall.ENOSPC)
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(kept))
}
