package acl_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// enforce runs an enforcer on the table. Its own looks are far apart, but for
// the question for the generation every five seconds.
func (r *router) enforce(table *acl.Table, addrs []netip.Addr) *access.Enforcer {
	r.t.Helper()
	var in provision.Input
	for i, ip := range addrs {
		id := provision.SubscriberID(i + 1)
		in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(ip)})
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.StateStop})
	}
	snap, _ := provision.Build(in)
	inputs := access.Inputs{Garden: prefixesOf("192.0.2.0/28"), Resolvers: prefixesOf("0.0.0.0/0")}
	e := access.NewEnforcer(access.Options{VerifyInterval: time.Hour, Inputs: func() access.Inputs { return inputs }},
		table, nil, func() *provision.Snapshot { return snap }, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(r.t, e.Run(ctx))
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
	require.NoError(r.t, e.Sync(r.t.Context()))
	return e
}

// within waits for a condition, which is to hold in less than a second.
func within(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for tick := time.NewTicker(time.Millisecond); !ok(); <-tick.C {
		require.Less(t, time.Since(began), time.Second, what)
	}
	return time.Since(began)
}

// Whatever somebody does to the table is undone within a second, told and
// counted, with the name of who did it.
func TestKernelForeignWritesAreUndoneAtOnce(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	e := r.enforce(table, subscribers(0, 1000))
	want := r.list()
	tests := []struct {
		name           string
		edit           []string
		extra, missing uint64
		repairs        uint64
		what           string
	}{
		{"element removed", []string{"delete element inet usher stopped { 100.64.0.5 }"}, 0, 1, 0, "missing in stopped: 100.64.0.5"},
		{"element added", []string{"add element inet usher paused { 100.64.0.5 }"}, 1, 0, 0, "extra in paused: 100.64.0.5"},
		{"garden widened", []string{"add element inet usher garden { 198.51.100.0/24 }"}, 1, 0, 0, "extra in garden: 198.51.100.0/24"},
		{"set flushed", []string{"flush set inet usher stopped"}, 0, 1000, 0, "and 995 more"},
		{"rules flushed", []string{"flush table inet usher"}, 0, 0, 1, ""},
		{"rule added", []string{"insert rule inet usher forward accept"}, 0, 0, 1, ""},
		{"table dropped", []string{"delete table inet usher"}, 0, 1002, 1, "missing in garden: 192.0.2.0/28"},
		{"ruleset flushed", []string{"flush ruleset"}, 0, 1002, 1, "and 997 more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := e.Status()
			r.nft(tt.edit...)
			took := within(t, "still not repaired", func() bool { return e.Status().LastDriftAt.After(before.LastDriftAt) && e.Status().Pending == 0 })
			require.NoError(t, e.Sync(t.Context()))
			t.Logf("noticed and repaired %s after nft's end", took)
			if diff := cmp.Diff(want, r.list()); diff != "" {
				t.Errorf("table (-before +after):\n%s", diff)
			}
			after := e.Status()
			require.Equal(t, []uint64{tt.extra, tt.missing, tt.repairs},
				[]uint64{after.DriftExtra - before.DriftExtra, after.DriftMissing - before.DriftMissing, after.TableRepairs - before.TableRepairs})
			require.Contains(t, strings.Join(after.LastDrift, "\n"), tt.what)
			require.Len(t, after.LastDriftBy, 1)
			require.Regexp(t, `^nft \(\d+\)$`, after.LastDriftBy[0])
		})
	}
}

func TestKernelOwnAndUnrelatedCommitsAreNoDrift(t *testing.T) {
	r := newRouter(t)
	r.load("foreign.nft")
	table := r.open()
	e := r.enforce(table, subscribers(0, 100))
	var woken atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(t, table.Watch(ctx, func() { woken.Add(1) }))
	}()
	within(t, "listens", func() bool { return woken.Load() == 1 })
	for range 20 {
		apply(t, table, add(access.SetPaused, subscribers(5000, 10)...))
		apply(t, table, remove(access.SetPaused, subscribers(5000, 10)...))
		r.nft("add element inet filter allowed { 198.51.100.1 } ; delete element inet filter allowed { 198.51.100.1 }")
		r.nft("add table inet usher2 ; delete table inet usher2")
	}
	_, err := table.OpenFor(t.Context(), time.Second)
	require.NoError(t, err)
	// The last event to be heard: then all before it were.
	r.nft("add element inet usher paused { 100.64.99.1 }")
	within(t, "a foreign write", func() bool { return woken.Load() > 1 })
	require.EqualValues(t, 2, woken.Load())
	require.NoError(t, e.Sync(t.Context()))
	st := e.Status()
	require.Equal(t, []uint64{1, 0, 0}, []uint64{st.DriftExtra, st.DriftMissing, st.TableRepairs})
	within(t, "the maintenance ends", func() bool { return time.Now().After(st.OpenUntil) })
	require.NoError(t, e.Sync(t.Context()))
	require.EqualValues(t, 1, e.Status().DriftExtra, "nor is the end of a maintenance")
	cancel()
	<-done
}

// So many events that some are lost: what they told of is found all the same.
func TestKernelLostEvents(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	table.ListenWith(r.namespace(), 2304) // the least that the kernel allows

	woken := make(chan struct{}, 1)
	result := make(chan error, 1)
	go func() {
		result <- table.Watch(t.Context(), func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	<-woken
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "add element inet usher stopped { 100.64.%d.%d }\n", i/250, i%250)
	}
	path := filepath.Join(t.TempDir(), "many.nft")
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o600))
	within(t, "events are lost", func() bool { // a quick reader may keep up once, not for ever
		r.nft("-f", path)
		r.nft("flush", "set", "inet", "usher", "stopped")
		select {
		case err := <-result:
			require.ErrorIs(t, err, unix.ENOBUFS)
			return true
		default:
			return false
		}
	})

	e := r.enforce(table, subscribers(0, 10)) // listens by the same small buffer
	r.nft("-f", path)
	within(t, "repaired", func() bool { return e.Status().DriftExtra > 4000 && len(r.elements("stopped")) == 10 })
}

// The table is dropped while a stopped subscriber and another one send without a
// pause: the first gets through for less than a second, the second loses nothing.
func TestKernelDroppedUnderTraffic(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{})
	e := w.enforce(w.table, []netip.Addr{w.firstAddr})
	end := w.lossless(w.second, serverIP)
	flood, err := w.first.Start("ping", "-n", "-q", "-i", "0.002", serverIP)
	require.NoError(t, err)
	for i := range uint64(5) {
		passed := w.passed()
		w.nft("delete table inet usher")
		within(t, "repaired", func() bool { return e.Status().TableRepairs == i+1 && e.Status().Pending == 0 })
		require.NoError(t, e.Sync(t.Context()))
		after := w.passed()
		t.Logf("%d packets of the stopped subscriber and answers to them passed", after-passed)
		require.Less(t, after-passed, 2*500, "a second's packets, there and back")
		require.Equal(t, "silence", w.try(w.first, "ping", serverIP, 100*time.Millisecond))
		require.Equal(t, after, w.passed(), "blocked again")
	}
	require.NoError(t, flood.Signal(syscall.SIGINT))
	_ = flood.Wait(t.Context())
	end()
}
