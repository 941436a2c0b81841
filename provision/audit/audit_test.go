package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// counts is an Observer.
type counts struct {
	mu     sync.Mutex // guards the rest
	n      map[Outcome]int
	failed int
}

func (c *counts) AuditRecords(o Outcome, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[Outcome]int{}
	}
	c.n[o] += n
}

func (c *counts) AuditFailed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed++
}

func (c *counts) of(o Outcome) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[o]
}

// numbered is a record that is told from others.
func numbered(n int) Record {
	return Record{Act: ACLVerify, Who: Who{By: BySocket, Process: &Process{UID: 0, GID: 4, PID: int32(n)}}, Result: Done}
}

// records reads a file; every line of it must be a record.
func records(t *testing.T, path string) []Record {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var out []Record
	for line := range bytes.Lines(b) {
		var r Record
		require.NoError(t, json.Unmarshal(line, &r), "%s: %q", path, line)
		require.Equal(t, version, r.Version)
		out = append(out, r)
	}
	return out
}

// Stored files are read by others: names and forms stay.
func TestForm(t *testing.T) {
	removed, open := 0, true
	for want, r := range map[string]Record{
		`{"v":1,"time":"2026-03-01T12:00:00Z","act":"customer.state","who":{"by":"socket","uid":0,"gid":4,"pid":77,"user":"root"},` +
			`"what":{"customer":1001,"state":"pause","before":"active","addresses":["192.0.2.17"]},"result":"partial","error":"no buffer space","kernel_dry_run":true}`: {
			Time: at.In(time.FixedZone("", 7200)), Act: CustomerState, Who: Who{By: BySocket, Process: &Process{GID: 4, PID: 77, User: "root"}},
			What:   What{Customer: 1001, State: "pause", Before: "active", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.17")}},
			Result: Partial, Error: "no buffer space", KernelDryRun: true},
		`{"v":1,"time":"2026-03-01T12:00:00Z","act":"erp.set_mac","who":{"by":"agent","evidence":{"device":7,"port":3,"relay":"10.0.0.1","option82":"0102","renewed":"2026-03-01T12:00:00Z"}},` +
			`"what":{"customer":1001,"ip":"192.0.2.17","mac":"00:00:5e:00:53:01","attempts":1},"result":"done"}`: {
			Act: SetMAC, Who: Who{By: ByAgent, Evidence: &Evidence{Device: 7, Port: 3, Relay: netip.MustParseAddr("10.0.0.1"), Option82: "0102", Renewed: at}},
			What: What{Customer: 1001, IP: netip.MustParseAddr("192.0.2.17"), MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, 1}, Attempts: 1}, Result: Done},
		`{"v":1,"time":"2026-03-01T12:00:00Z","act":"config.reload","who":{"by":"signal"},"result":"refused","dry_run":true}`: {
			Act: ConfigReload, Who: Who{By: BySignal}, Result: Refused, DryRun: true},
		`{"v":1,"time":"2026-03-01T12:00:00Z","act":"routes.clear","who":{"by":"command"},"what":{"was_open":true,"removed":0},"result":"done"}`: {
			Act: RoutesClear, Who: Who{By: ByCommand}, What: What{Removed: &removed, WasOpen: &open}, Result: Done},
	} {
		line, err := r.line(at)
		require.NoError(t, err)
		assert.Equal(t, want+"\n", string(line))
	}
}

// A line is bounded and is one line, whatever is written into its fields.
func TestLineIsBounded(t *testing.T) {
	long := strings.Repeat("ü\n\"", 1000)
	r := Record{Act: CallERP, Error: long, What: What{Reason: long, Path: long, Arguments: map[string]string{}, Addresses: make([]netip.Addr, 100_000)}}
	for i := range 1000 {
		r.What.Arguments[fmt.Sprintf("%d%s", i, long)] = long
	}
	line, err := r.line(at)
	require.NoError(t, err)
	assert.Less(t, len(line), 256<<10)
	assert.Equal(t, len(line)-1, bytes.IndexByte(line, '\n'))
	assert.Len(t, r.What.Arguments, 1000, "the caller's is left alone")
	var back Record
	require.NoError(t, json.Unmarshal(line, &back))
	assert.True(t, strings.HasSuffix(back.Error, "..."))
}

// Many processes append to one file that is put aside again and again: every
// record is there once, whole, and those of one writer stand in their order.
func TestNothingIsTornOrLostOverRotation(t *testing.T) {
	const writers, each = 4, 60
	line, err := numbered(0).line(at)
	require.NoError(t, err)
	// All of them fit into the files that are kept, and not into fewer than two.
	f := file{filepath.Join(t.TempDir(), fileName), int64(len(line)+30) * writers * each / oldFiles}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; i < each; i += 3 {
				var lines [][]byte
				for k := range 3 {
					r := numbered(w*1000 + i + k)
					r.What.Reason = strings.Repeat("x", (i+k)%10)
					line, err := r.line(at)
					assert.NoError(t, err)
					lines = append(lines, line)
				}
				n, err := f.append(lines)
				assert.NoError(t, err)
				assert.Equal(t, 3, n)
			}
		})
	}
	wg.Wait()
	seen := map[int32]int{}
	paths, err := filepath.Glob(f.path + "*")
	require.NoError(t, err)
	assert.Greater(t, len(paths), 1)
	for _, path := range paths {
		for _, r := range records(t, path) {
			seen[r.Who.PID]++
		}
	}
	assert.Len(t, seen, writers*each)
	for pid, n := range seen {
		assert.Equal(t, 1, n, "record %d", pid)
	}
}

// The files stay within their bound, the newest records in the one without a number.
func TestRotationIsBounded(t *testing.T) {
	dir := t.TempDir()
	line, err := numbered(100).line(at)
	require.NoError(t, err)
	f := file{filepath.Join(dir, fileName), int64(10 * len(line))}
	for i := 100; i < 165; i++ {
		line, err := numbered(i).line(at)
		require.NoError(t, err)
		_, err = f.append([][]byte{line})
		require.NoError(t, err)
	}
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, list, 1+oldFiles)
	for i, want := range map[int][2]int32{0: {160, 164}, 1: {150, 159}, 2: {140, 149}, 3: {130, 139}} {
		path := f.path
		if i > 0 {
			path = f.old(i)
		}
		got := records(t, path)
		assert.Equal(t, want, [2]int32{got[0].Who.PID, got[len(got)-1].Who.PID}, path)
	}
}

func TestTornLineOfACrashIsEnded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	require.NoError(t, os.WriteFile(path, []byte("{\"v\":1}\n{\"v\":1,\"ti"), 0o640))
	require.NoError(t, Append(dir, numbered(1)))
	require.NoError(t, Append(dir, numbered(2)))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(string(b), "\n")
	require.Len(t, lines, 5)
	assert.Equal(t, `{"v":1,"ti`, lines[1])
	assert.Contains(t, lines[2], `"pid":1`)
	assert.Contains(t, lines[3], `"pid":2`)
}

// The agent's umask leaves less, and root makes the file for the directory's owner.
func TestModeAndOwner(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	root := os.Geteuid() == 0
	if root {
		require.NoError(t, os.Chown(dir, 12, 34))
	}
	require.NoError(t, Append(dir, numbered(1)))
	info, err := os.Lstat(filepath.Join(dir, fileName))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode())
	if st := info.Sys().(*syscall.Stat_t); root {
		assert.Equal(t, [2]uint32{12, 34}, [2]uint32{st.Uid, st.Gid})
	}
}

// Whoever owns the directory leads nobody who appends to another file.
func TestOnlyARegularFile(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("elsewhere", path) },
		"device": func(path string) error { return os.Symlink("/dev/full", path) },
		"fifo":   func(path string) error { return syscall.Mkfifo(path, 0o640) },
		"folder": func(path string) error { return os.Mkdir(path, 0o750) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, plant(filepath.Join(dir, fileName)))
			require.ErrorContains(t, Append(dir, numbered(1)), "audit record: ")
			_, err := os.Lstat(filepath.Join(dir, "elsewhere"))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

func TestAppendMakesNoDirectory(t *testing.T) {
	require.ErrorIs(t, Append(filepath.Join(t.TempDir(), "none"), numbered(1)), os.ErrNotExist)
}

// clocked is a log with the clock of a bubble.
func clocked(dir string, obs Observer, out io.Writer) *Log {
	return NewLog(dir, obs, slog.New(slog.NewTextHandler(out, nil)), time.Now)
}

// A directory that is not there, and is: nothing is lost meanwhile, and it is told once each way.
func TestDiskComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		var obs counts
		var out bytes.Buffer
		l := clocked(dir, &obs, &out)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		began := time.Now()
		l.Add(numbered(1))
		l.Add(numbered(2))
		time.Sleep(5*retryAfter + retryAfter/2)
		synctest.Wait()
		assert.Zero(t, obs.of(OutcomeWritten))
		assert.Equal(t, 6, obs.failed)
		assert.NoError(t, os.Mkdir(dir, 0o750))
		time.Sleep(retryAfter)
		synctest.Wait()
		assert.Equal(t, 2, obs.of(OutcomeWritten))
		l.Add(numbered(3))
		synctest.Wait()
		cancel()
		assert.NoError(t, <-ended)
		l.Add(numbered(4))
		assert.NoError(t, l.Close(), "what was not written yet is")
		got := records(t, l.file.path)
		if assert.Len(t, got, 4) {
			assert.True(t, got[0].Time.Equal(began), "the time of the act, not of the write")
		}
		assert.Equal(t, 1, strings.Count(out.String(), "cannot be written"))
		assert.Equal(t, 1, strings.Count(out.String(), "are written again"))
		l.Add(numbered(5))
		assert.Equal(t, 1, obs.of(OutcomeLost), "nobody writes any more")
	})
}

// More than can wait are lost, counted, told once and mentioned in the file.
func TestFullQueueLosesTheNewest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var obs counts
	var out bytes.Buffer
	l := clocked(dir, &obs, &out)
	for i := range maxWaiting + 5 {
		l.Add(numbered(i))
	}
	assert.Equal(t, 5, obs.of(OutcomeLost))
	assert.Equal(t, 1, strings.Count(out.String(), "audit records are lost"))
	require.Error(t, l.flush())
	require.NoError(t, os.Mkdir(dir, 0o750))
	require.NoError(t, l.flush())
	got := records(t, l.file.path)
	require.Len(t, got, maxWaiting+1)
	assert.Equal(t, Lost, got[maxWaiting].Act)
	assert.Equal(t, 5, got[maxWaiting].What.Records)
}

func TestCloseWithABadDiskTells(t *testing.T) {
	var obs counts
	l := clocked(filepath.Join(t.TempDir(), "none"), &obs, io.Discard)
	l.Add(numbered(1))
	l.Add(numbered(2))
	require.ErrorContains(t, l.Close(), "(2 records are lost)")
	assert.Equal(t, 2, obs.of(OutcomeLost))
}

// A full disk cuts a line off. The record follows whole as soon as there is room.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatal("needs root and USHER_REQUIRE_KERNEL=1")
		}
		t.Skip("needs root to mount a small disk")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	var obs counts
	l := clocked(dir, &obs, io.Discard)
	filler := filepath.Join(dir, "filler")
	require.NoError(t, os.WriteFile(filler, make([]byte, 56<<10), 0o600))
	const n = 200
	for i := range n {
		l.Add(numbered(i))
	}
	require.ErrorIs(t, l.flush(), syscall.ENOSPC)
	require.ErrorIs(t, l.flush(), syscall.ENOSPC)
	before := obs.of(OutcomeWritten)
	assert.Positive(t, before)
	assert.Less(t, before, n)
	require.NoError(t, os.Remove(filler))
	require.NoError(t, l.flush())
	assert.Equal(t, n, obs.of(OutcomeWritten))
	b, err := os.ReadFile(l.file.path)
	require.NoError(t, err)
	var pids []int32
	torn := 0
	for line := range bytes.Lines(b) {
		var r Record
		if json.Unmarshal(line, &r) != nil {
			torn++
			continue
		}
		pids = append(pids, r.Who.PID)
	}
	assert.LessOrEqual(t, torn, 1)
	require.Len(t, pids, n)
	for i, pid := range pids {
		assert.EqualValues(t, i, pid)
	}
}

// A directory service that hangs holds up each caller for a moment and takes one goroutine.
func TestNames(t *testing.T) {
	assert.Equal(t, "root", NewNames().Of(0))
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var calls atomic.Int32
		names := newNames(func(uid string) (string, error) { calls.Add(1); <-hang; return "u" + uid, nil })
		began := time.Now()
		for range 3 {
			assert.Empty(t, names.Of(7))
		}
		assert.Equal(t, 3*nameLimit, time.Since(began))
		assert.EqualValues(t, 1, calls.Load())
		close(hang)
		synctest.Wait()
		assert.Equal(t, "u8", names.Of(8))
	})
}
