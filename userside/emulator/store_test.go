package emulator

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/bench/cpu"
	"github.com/usher-agent/usher/bench/long"
)

// sameData compares everything that is persistent.
func sameData(t *testing.T, want, got *Emulator) {
	t.Helper()
	opts := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.EquateEmpty(), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })}
	for name, pair := range map[string][2]any{
		"customers": {want.Customers(), got.Customers()},
		"devices":   {want.Devices(), got.Devices()},
		"vlans":     {want.VLANs(), got.VLANs()},
		"history":   {want.history, got.history},
		"index":     {sortedIndex(want), sortedIndex(got)},
	} {
		if reflect.DeepEqual(pair[0], pair[1]) { // cmp alone takes seconds under the race detector
			continue
		}
		if diff := cmp.Diff(pair[0], pair[1], opts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func sortedIndex(e *Emulator) map[string][]int64 {
	out := map[string][]int64{}
	for ip, ids := range e.byIP {
		out[ip.String()] = slices.Sorted(slices.Values(ids))
	}
	return out
}

// A file copied while the emulator runs is what a crash leaves: all changes
// that were answered are in it.
func TestPersistence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erp.db")
	e := small(t, Options{Path: path})
	post(t, e, "cat=customer&action=set_mac_by_ip&ip=100.64.0.21&mac=00:00:5e:00:53:99")
	post(t, e, "cat=customer&action=state_change&customer_id=1001&state_id=0")
	post(t, e, "cat=customer&action=ip_add&customer_id=1001&value=100.64.0.77")
	post(t, e, "cat=customer&action=ip_delete&customer_id=1003&value=all")
	require.NoError(t, e.Link(1003, 6001, 9))

	b, err := os.ReadFile(path)
	require.NoError(t, err)
	crashed := filepath.Join(t.TempDir(), "crashed.db")
	require.NoError(t, os.WriteFile(crashed, b, 0o600))
	var log bytes.Buffer
	again := open(t, Options{Path: crashed, Customers: 500, Seed: 9, Log: slog.New(slog.NewTextHandler(&log, nil))})
	sameData(t, e, again)
	require.Contains(t, log.String(), "emulator data loaded, not generated")
	require.Len(t, again.Customers(), 5)

	// It goes on from there.
	id, err := again.AddCustomer(Customer{})
	require.NoError(t, err)
	require.Equal(t, int64(1006), id)
}

func TestGeneratedPersistence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erp.db")
	first, err := Open(Options{Keys: []Key{{Key: "k"}}, Path: path, Customers: 1500, Seed: 3})
	require.NoError(t, err)
	require.NoError(t, first.Close())
	again := open(t, Options{Path: path})
	sameData(t, open(t, Options{Customers: 1500, Seed: 3}), again)
	sameData(t, first, again)
}

func TestFileIsOurs(t *testing.T) {
	dir := t.TempDir()
	keys := []Key{{Key: "k"}}

	busy := filepath.Join(dir, "busy.db")
	open(t, Options{Path: busy})
	_, err := Open(Options{Keys: keys, Path: busy})
	require.EqualError(t, err, "emulator: open data file "+busy+": another process has it open")

	text := filepath.Join(dir, "text.db")
	require.NoError(t, os.WriteFile(text, bytes.Repeat([]byte("not a data base\n"), 1000), 0o600))
	_, err = Open(Options{Keys: keys, Path: text})
	require.ErrorContains(t, err, "emulator: open data file "+text)

	damage := func(name string, fn func(*bbolt.Tx) error) string {
		path := filepath.Join(dir, name)
		e, err := Open(Options{Keys: keys, Path: path, Customers: 10})
		require.NoError(t, err)
		require.NoError(t, e.Close())
		db, err := bbolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Update(fn))
		require.NoError(t, db.Close())
		return path
	}
	newer := damage("newer.db", func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(formatKey, []byte("usher-emulator-9")) })
	_, err = Open(Options{Keys: keys, Path: newer})
	require.EqualError(t, err, "emulator: data file "+newer+`: format "usher-emulator-9", want "usher-emulator-1"`)
	broken := damage("broken.db", func(tx *bbolt.Tx) error { return tx.Bucket(bucketCustomers).Put(idKey(1001), []byte("{")) })
	_, err = Open(Options{Keys: keys, Path: broken})
	require.EqualError(t, err, "emulator: data file "+broken+": customers 00000000000003e9: unexpected end of JSON input")
	lacking := damage("lacking.db", func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketDevices) })
	_, err = Open(Options{Keys: keys, Path: lacking})
	require.EqualError(t, err, "emulator: data file "+lacking+": bucket devices is missing")
	// A failed start leaves the file free.
	_, err = Open(Options{Keys: keys, Path: lacking})
	require.ErrorContains(t, err, "bucket devices is missing")
}

// When the file cannot be written, the caller hears it and nothing has changed.
func TestFailedWriteChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erp.db")
	e := small(t, Options{Path: path})
	before := e.Customers()
	feed := e.Changes(t.Context())
	require.NoError(t, e.store.db.Close())
	got := post(t, e, "cat=customer&action=state_change&customer_id=1001&state_id=0")
	require.Equal(t, reply{500, `{"result":"ERROR","error":"internal error"}`}, got)
	require.Equal(t, before, e.Customers())
	require.Empty(t, feed)
}

func TestHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erp.db")
	e := small(t, Options{Path: path})
	e.store.db.NoSync = true // 130 transactions; their durability is not the matter here
	for i := range maxHistory + 30 {
		require.NoError(t, e.SetIPMAC(ip("100.64.0.10"), MAC{2, 0, 0, 0, 1, byte(i)}))
	}
	recs := e.MACHistory(1001)
	require.Len(t, recs, maxHistory)
	require.Equal(t, byte(30), recs[0].MAC[5])
	require.NoError(t, e.store.db.View(func(tx *bbolt.Tx) error {
		require.Equal(t, maxHistory, tx.Bucket(bucketHistory).Stats().KeyN)
		return nil
	}))
}

// childFile makes the test binary the victim of TestKill: it opens this file and
// changes MACs until it dies.
const childFile = "USHER_EMULATOR_TEST_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		os.Exit(child(path))
	}
	os.Exit(m.Run())
}

// child writes "MAC" lines for changes that were answered with OK.
func child(path string) int {
	e, err := Open(Options{Keys: []Key{{Key: testKey}}, Path: path, Customers: 20, Seed: 1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 1; ; i++ {
		m := MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		if err := e.SetIPMAC(ip("100.64.0.2"), m); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(m)
	}
}

// After kill -9 the last change that was told to have succeeded is there.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erp.db")
	for round := range long.Times(t, 3, 150) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childFile+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		var last string
		for range 5 + 7*(round%3) {
			require.True(t, lines.Scan(), "the child died by itself")
			last = lines.Text()
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() { // what it had said before it died
			last = lines.Text()
		}
		require.Error(t, cmd.Wait())

		e, err := Open(Options{Keys: []Key{{Key: testKey}}, Path: path})
		require.NoError(t, err)
		recs := e.MACHistory(firstCustomer)
		said := -1 // the newest of them: earlier rounds wrote the same MACs
		for i, r := range recs {
			if r.MAC.String() == last {
				said = i
			}
		}
		// One more may have been stored and not yet told.
		assert.GreaterOrEqual(t, said, len(recs)-2, "told %s, stored %v", last, recs)
		assert.NotEqual(t, -1, said)
		c, _ := e.Customer(firstCustomer)
		assert.Equal(t, recs[len(recs)-1].MAC, c.Addresses[0].MAC)
		require.NoError(t, e.Close())
	}
}

// Readers and writers at once, for the race detector; at the end all agree.
func TestConcurrentUse(t *testing.T) {
	e := open(t, Options{Customers: 300, Path: filepath.Join(t.TempDir(), "erp.db")})
	e.store.db.NoSync = true
	h := e.AdminHandler()
	feed := e.Changes(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				id := int64(firstCustomer + (w*25+i)%200)
				post(t, e, fmt.Sprintf("cat=customer&action=state_change&customer_id=%d&state_id=%d", id, i%3))
				post(t, e, fmt.Sprintf("cat=customer&action=set_mac_by_ip&ip=100.64.0.%d&mac=02:00:00:00:%02x:%02x", 2+i, w, i))
				assert.NoError(t, e.SetShape(ShapeA+Shape(i%6)))
				assert.NoError(t, e.SetQuirks(Quirks{NumericStrings: i%2 == 0}))
			}
		})
		wg.Go(func() {
			for range 10 {
				assert.Equal(t, 200, get(t, e, "cat=customer&action=get_ip_port_device_commutation").status)
				assert.Equal(t, 200, get(t, e, "cat=module&request=get_user_list").status)
				get(t, e, fmt.Sprintf("cat=customer&action=get_mac_history&customer_id=%d", firstCustomer))
				serve(h, httptest.NewRequest("GET", "/admin/", nil))
				e.Customers()
			}
		})
	}
	wg.Wait()
	require.NotEmpty(t, feed)
	path := e.store.db.Path()
	require.NoError(t, e.Close())
	again := open(t, Options{Path: path})
	sameData(t, e, again)
}

// A reader of the feed that sleeps costs itself changes and nobody else time.
func TestFeedDoesNotBlock(t *testing.T) {
	e := small(t, Options{})
	feed := e.Changes(t.Context())
	for i := range feedBuffer + 50 {
		require.NoError(t, e.SetState(1001, State(i%2)))
	}
	require.Len(t, feed, feedBuffer)
}

// discard is a ResponseWriter that counts.
type discard struct {
	header http.Header
	n      int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { d.n += len(b); return len(b), nil }

func ask(e *Emulator, params string) int {
	d := &discard{header: http.Header{}}
	e.ServeHTTP(d, httptest.NewRequest("GET", "/api.php?key="+testKey+"&"+params, nil))
	return d.n
}

// 100,000 customers: the agent's start waits for this answer. What it takes of processors is
// compared, which other work on the machine does not change; the bound is far above that.
func TestHundredThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("generates 100,000 customers")
	}
	customers := 100_000
	if raceEnabled {
		customers = 10_000 // the race detector takes ten times as long, and nothing is learned from it here
	}
	path := filepath.Join(t.TempDir(), "erp.db")
	first, err := Open(Options{Keys: []Key{{Key: testKey}}, Customers: customers, Path: path})
	require.NoError(t, err)
	require.NoError(t, first.Close())
	used := func() time.Duration {
		d, err := cpu.Used(os.Getpid())
		require.NoError(t, err)
		return d
	}
	began := used()
	e := open(t, Options{Path: path})
	loaded := used() - began
	for sh := ShapeA; sh <= ShapeE; sh++ {
		require.NoError(t, e.SetShape(sh))
		began := used()
		n := ask(e, "cat=customer&action=get_ip_port_device_commutation")
		took := used() - began
		t.Logf("shape %v: %.1f MB in %v", sh, float64(n)/1e6, took)
		assert.Greater(t, n, customers*50)
		assert.Less(t, took, 5*time.Second)
	}
	t.Logf("loaded in %v", loaded)
	assert.Less(t, loaded, 10*time.Second)
}

func BenchmarkBindings(b *testing.B) {
	e := open(b, Options{Customers: 100_000})
	for sh := ShapeA; sh <= ShapeE; sh++ {
		b.Run(sh.String(), func(b *testing.B) {
			require.NoError(b, e.SetShape(sh))
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(int64(ask(e, "cat=customer&action=get_ip_port_device_commutation")))
			}
		})
	}
	b.Run("user_list", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.SetBytes(int64(ask(e, "cat=module&request=get_user_list")))
		}
	})
}

func BenchmarkSetMAC(b *testing.B) {
	e := open(b, Options{Customers: 1000, Path: filepath.Join(b.TempDir(), "erp.db")})
	i := 0
	for b.Loop() {
		i++
		require.NoError(b, e.SetIPMAC(ip("100.64.0.2"), MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}))
	}
}
