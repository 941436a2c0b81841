package route

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// fakeRoutes is a kernel in memory: a link that goes down takes its routes
// along without a word, and events of others are reported.
type fakeRoutes struct {
	mu      sync.Mutex // guards everything
	links   map[int]Link
	routes  map[Route]bool
	on      func(Event)
	applied int
	fail    error          // of Apply and the lists
	delay   time.Duration  // of Apply
	listing time.Duration  // of each list
	refuse  map[Route]bool // adding fails
}

func newFakeRoutes() *fakeRoutes {
	return &fakeRoutes{links: map[int]Link{}, routes: map[Route]bool{}, refuse: map[Route]bool{}}
}

func (f *fakeRoutes) setDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

func (f *fakeRoutes) setListDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listing = d
}

// lose tells of a gap in the events.
func (f *fakeRoutes) lose() {
	f.mu.Lock()
	on := f.on
	f.mu.Unlock()
	on(Event{Lost: true})
}

// wait passes the time that a call takes.
func (f *fakeRoutes) wait(of *time.Duration) {
	f.mu.Lock()
	d := *of
	f.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
}

func (f *fakeRoutes) Links(context.Context) ([]Link, error) {
	f.wait(&f.listing)
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.links)), f.fail
}

func (f *fakeRoutes) Routes(context.Context) ([]Route, error) {
	f.wait(&f.listing)
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.routes)), f.fail
}

func (f *fakeRoutes) Apply(_ context.Context, changes []Change) ([]error, error) {
	f.wait(&f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	out := make([]error, len(changes))
	for i, c := range changes {
		f.applied++
		switch {
		case c.Op == provision.OpRemove:
			delete(f.routes, c.Route)
		case f.refuse[c.Route]:
			out[i] = errors.New("no memory")
		case !f.links[c.Route.Ifindex].Up:
			out[i] = ErrNoLink
		default:
			f.routes[c.Route] = true
		}
	}
	return out, nil
}

func (f *fakeRoutes) Watch(ctx context.Context, on func(Event)) error {
	f.mu.Lock()
	f.on = on
	f.mu.Unlock()
	on(Event{Lost: true})
	<-ctx.Done()
	return ctx.Err()
}

// set changes a link as the kernel does; tell is false for a lost event.
func (f *fakeRoutes) set(l Link, tell bool) {
	f.mu.Lock()
	if l.Gone {
		delete(f.links, l.Index)
	} else {
		f.links[l.Index] = l
	}
	if !l.Up || l.Gone {
		maps.DeleteFunc(f.routes, func(r Route, _ bool) bool { return r.Ifindex == l.Index })
	}
	on := f.on
	f.mu.Unlock()
	if on != nil && tell {
		on(Event{Link: &l})
	}
}

// other changes a route as another program does.
func (f *fakeRoutes) other(op provision.Op, r Route, tell bool) {
	f.mu.Lock()
	if op == provision.OpAdd {
		f.routes[r] = true
	} else {
		delete(f.routes, r)
	}
	on := f.on
	f.mu.Unlock()
	if tell {
		on(Event{Op: op, Route: &r})
	}
}

func (f *fakeRoutes) setFail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *fakeRoutes) setRefuse(r Route, no bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse[r] = no
}

// String prints the routes as sorted text: last byte of the address, interface.
func (f *fakeRoutes) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range slices.SortedFunc(maps.Keys(f.routes), Route.Compare) {
		out = append(out, fmt.Sprintf("%d>%d", r.Addr.As4()[3], r.Ifindex))
	}
	return strings.Join(out, " ")
}

type fakeRouteLeases struct {
	mu sync.Mutex // guards m
	m  map[netip.Addr]lease.Record
}

func (f *fakeRouteLeases) Get(a netip.Addr) (lease.Record, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.m[a]
	return l, ok
}

func (f *fakeRouteLeases) All() iter.Seq[lease.Record] {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Values(slices.Collect(maps.Values(f.m)))
}

func (f *fakeRouteLeases) put(last byte, iface string, expires time.Time) netip.Addr {
	a := route(last, 0).Addr
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m[a] = record(a, iface, expires)
	return a
}

// record is a lease of a client on the link; without an end it was given back.
func record(a netip.Addr, iface string, expires time.Time) lease.Record {
	rec := lease.Record{IP: a, Interface: iface, State: lease.StateBound, Expires: expires}
	if expires.IsZero() {
		rec.State = lease.StateReleased
	}
	return rec
}

type routeWorld struct {
	kernel *fakeRoutes
	leases *fakeRouteLeases
	keeper *Keeper
	opts   Options
}

// newRouteWorld has the links c1 to c3 with the indexes 1 to 3, up, and x9,
// which is not served.
func newRouteWorld() *routeWorld {
	w := &routeWorld{kernel: newFakeRoutes(), leases: &fakeRouteLeases{m: map[netip.Addr]lease.Record{}}}
	for i, name := range map[int]string{1: "c1", 2: "c2", 3: "c3", 9: "x9"} {
		w.kernel.links[i] = Link{Index: i, Name: name, Up: true}
	}
	w.opts = Options{
		Serves: func(name string) bool { return strings.HasPrefix(name, "c") },
		Table:  254, VerifyInterval: time.Minute, KeepUnknown: 10 * time.Minute,
	}
	return w
}

// start runs the keeper in a bubble of synctest.
func (w *routeWorld) start(t *testing.T) {
	t.Helper()
	w.keeper = New(w.opts, w.kernel, w.leases, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.keeper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	synctest.Wait()
}

func (w *routeWorld) ack(last byte, iface string, d time.Duration) {
	w.keeper.Touch(w.leases.put(last, iface, time.Now().Add(d)), time.Now())
	synctest.Wait()
}

func (w *routeWorld) release(last byte) {
	w.keeper.Touch(w.leases.put(last, "c1", time.Time{}), time.Now())
	synctest.Wait()
}

func (w *routeWorld) want(t *testing.T, text string) {
	t.Helper()
	synctest.Wait()
	require.Equal(t, text, w.kernel.String())
}

func TestRouteKeeper(t *testing.T) {
	up := func(i int, name string) Link { return Link{Index: i, Name: name, Up: true} }
	tests := []struct {
		name string
		run  func(*testing.T, *routeWorld)
	}{
		{"added at the ACK, removed at the release", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.want(t, "17>1")
			w.release(17)
			w.want(t, "")
		}},
		{"kept after a release that need not be the client's, till the lease ends", func(t *testing.T, w *routeWorld) {
			w.start(t)
			at := w.leases.put(17, "c1", time.Now().Add(time.Hour))
			w.leases.mu.Lock()
			rec := w.leases.m[at]
			rec.State = lease.StateReleased
			w.leases.m[at] = rec
			w.leases.mu.Unlock()
			w.keeper.Touch(at, time.Now())
			time.Sleep(time.Hour - time.Second)
			w.want(t, "17>1")
			time.Sleep(time.Second)
			w.want(t, "")
		}},
		{"removed at expiry, to the second", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			time.Sleep(time.Hour - time.Second)
			w.want(t, "17>1")
			time.Sleep(time.Second)
			w.want(t, "")
		}},
		{"the last address of an interface takes its routes along", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(18, "c2", time.Hour)
			verified := w.keeper.Status().LastVerifiedAt
			time.Sleep(time.Second)
			w.kernel.on(Event{Unnumbered: 3})
			synctest.Wait()
			require.Equal(t, verified, w.keeper.Status().LastVerifiedAt, "no route of ours leads there")
			w.kernel.other(provision.OpRemove, route(17, 1), false)
			w.kernel.on(Event{Unnumbered: 1})
			w.want(t, "17>1 18>2")
			require.EqualValues(t, 1, w.keeper.Status().DriftMissing)
		}},
		{"a renewal keeps it", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			for range 5 {
				time.Sleep(30 * time.Minute)
				w.ack(17, "c1", time.Hour)
				w.want(t, "17>1")
			}
			time.Sleep(59 * time.Minute)
			w.want(t, "17>1")
			time.Sleep(time.Minute)
			w.want(t, "")
		}},
		{"a renewal that shortens the lease is heeded", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(17, "c1", time.Minute)
			time.Sleep(time.Minute)
			w.want(t, "")
		}},
		{"a renewal that nobody told is seen at the old end", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.leases.put(17, "c1", time.Now().Add(3*time.Hour))
			time.Sleep(2 * time.Hour)
			w.want(t, "17>1")
			time.Sleep(time.Hour)
			w.want(t, "")
		}},
		{"moved with the port", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(17, "c2", time.Hour)
			w.want(t, "17>2")
		}},
		{"moved behind a relay or to an interface that is not served", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(18, "c1", time.Hour)
			w.ack(17, "", time.Hour)
			w.ack(18, "x9", time.Hour)
			w.want(t, "")
		}},
		{"a link that flaps", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.kernel.set(Link{Index: 1, Name: "c1"}, true)
			w.want(t, "")
			require.Equal(t, 1, w.keeper.Status().Waiting)
			w.kernel.set(up(1, "c1"), true)
			w.want(t, "17>1")
			require.Zero(t, w.keeper.Status().Waiting)
			require.Zero(t, w.keeper.Status().DriftMissing, "that was the kernel, not a stranger")
		}},
		{"a link that is made anew has another index", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.kernel.set(Link{Index: 1, Name: "c1", Gone: true}, true)
			w.want(t, "")
			w.kernel.set(up(5, "c1"), true)
			w.want(t, "17>5")
		}},
		{"links that swap their names", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(18, "c2", time.Hour)
			w.kernel.set(up(1, "tmp"), true)
			w.kernel.set(up(2, "c1"), true)
			w.kernel.set(up(1, "c2"), true)
			w.want(t, "17>2 18>1")
		}},
		{"the ACK comes before the link", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c7", time.Hour)
			w.want(t, "")
			w.kernel.set(up(7, "c7"), true)
			w.want(t, "17>7")
		}},
		{"lost events are made up for by the comparison", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(18, "c2", time.Hour)
			w.kernel.set(Link{Index: 1, Name: "c1", Gone: true}, false)
			w.kernel.set(up(5, "c1"), false)
			w.kernel.other(provision.OpRemove, route(18, 2), false)
			w.want(t, "")
			time.Sleep(time.Minute)
			w.want(t, "17>5 18>2")
		}},
		{"others delete and add", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.kernel.other(provision.OpRemove, route(17, 1), true)
			w.want(t, "17>1")
			w.kernel.other(provision.OpAdd, route(17, 3), true)
			w.want(t, "17>1")
			w.kernel.other(provision.OpAdd, route(44, 3), true)
			time.Sleep(11 * time.Minute) // no record of it: kept for a while
			w.want(t, "17>1")
			st := w.keeper.Status()
			require.Equal(t, []uint64{2, 1}, []uint64{st.DriftExtra, st.DriftMissing})
		}},
		{"adopts what is there", func(t *testing.T, w *routeWorld) {
			now := time.Now()
			for r := range map[Route]bool{route(17, 1): true, route(18, 1): true, route(19, 1): true, route(20, 1): true} {
				w.kernel.routes[r] = true
			}
			w.leases.put(17, "c1", now.Add(time.Hour))
			w.leases.put(18, "c2", now.Add(time.Hour)) // moved while nobody looked
			w.leases.put(19, "c1", now.Add(-time.Second))
			w.leases.put(21, "c3", now.Add(time.Hour))
			w.start(t)
			w.want(t, "17>1 18>2 20>1 21>3")
			require.Equal(t, 4, w.kernel.applied, "no change too many")
			require.Equal(t, 1, w.keeper.Status().Unknown)
			require.Equal(t, 4, w.keeper.Status().Adopted)
			time.Sleep(10 * time.Minute) // the client of 20 would have renewed by now
			w.want(t, "17>1 18>2 21>3")
			require.Zero(t, w.keeper.Status().DriftExtra)
		}},
		{"a client without a record renews in time", func(t *testing.T, w *routeWorld) {
			w.kernel.routes[route(20, 1)] = true
			w.start(t)
			time.Sleep(5 * time.Minute)
			w.ack(20, "c1", time.Hour)
			time.Sleep(30 * time.Minute)
			w.want(t, "20>1")
		}},
		{"another metric replaces", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			o := w.opts
			o.Metric = 5
			w.keeper.Reconfigure(o)
			synctest.Wait()
			r := route(17, 1)
			r.Metric = 5
			require.Equal(t, map[Route]bool{r: true}, w.kernel.routes)
		}},
		{"an interface is no longer served", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", time.Hour)
			w.ack(18, "c2", time.Hour)
			o := w.opts
			o.Serves = func(name string) bool { return name == "c2" }
			w.keeper.Reconfigure(o)
			w.want(t, "18>2")
		}},
		{"a kernel that fails is tried again", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.kernel.setFail(errors.New("out of order"))
			w.ack(17, "c1", time.Hour)
			require.Contains(t, w.keeper.Status().LastError, "out of order")
			time.Sleep(time.Second)
			w.kernel.setFail(nil)
			time.Sleep(5 * time.Second)
			w.want(t, "17>1")
			require.Empty(t, w.keeper.Status().LastError)
		}},
		{"one route that is refused does not hold the others", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.kernel.setRefuse(route(17, 1), true)
			w.ack(17, "c1", time.Hour)
			w.ack(18, "c1", time.Hour)
			w.want(t, "18>1")
			require.Equal(t, "add the route of 198.51.100.17: no memory", w.keeper.Status().LastError)
			w.kernel.setRefuse(route(17, 1), false)
			time.Sleep(5 * time.Second)
			w.want(t, "17>1 18>1")
			require.Empty(t, w.keeper.Status().LastError)
		}},
		{"dry run touches nothing", func(t *testing.T, w *routeWorld) {
			w.opts.DryRun = true
			w.kernel.routes[route(30, 1)] = true
			w.start(t)
			w.ack(17, "c1", time.Hour)
			time.Sleep(time.Hour)
			w.want(t, "30>1")
			require.Zero(t, w.kernel.applied)
		}},
		{"nothing to do costs nothing", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.ack(17, "c1", 100*time.Hour)
			for range 100 {
				w.ack(17, "c1", 100*time.Hour)
				time.Sleep(time.Minute)
			}
			require.Equal(t, 1, w.kernel.applied)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tt.run(t, newRouteWorld()) })
		})
	}
}

// An acknowledgement leaves when the route is there, also while everything is compared; it waits no longer than the limit
// if the kernel is slow or fails, and not at all once the keeper has ended.
func TestRouteBeforeTheAcknowledgement(t *testing.T) {
	admit := func(w *routeWorld, last byte, iface string) time.Duration {
		begin := time.Now()
		w.keeper.Admit([]netip.Addr{w.leases.put(last, iface, begin.Add(time.Hour))}, begin)()
		return time.Since(begin)
	}
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *routeWorld)
	}{
		{"a kernel that takes its time", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.kernel.setDelay(5 * time.Millisecond)
			require.Equal(t, 5*time.Millisecond, admit(w, 17, "c1"))
			require.Equal(t, "17>1", w.kernel.String())
			require.Equal(t, 5*time.Millisecond, admit(w, 17, "c2"))
			require.Equal(t, "17>2", w.kernel.String(), "it moved")
			require.Zero(t, admit(w, 17, "c2"), "nothing is to be done")
			require.Zero(t, admit(w, 18, "x9"), "no interface of ours")
			require.Zero(t, admit(w, 19, "c7"), "one that is not there")
		}},
		{"a kernel that hangs", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.kernel.setDelay(time.Minute)
			require.Equal(t, admitLimit, admit(w, 17, "c1"))
			require.Equal(t, admitLimit, admit(w, 18, "c1"))
			require.Empty(t, w.kernel.String())
			time.Sleep(3 * time.Minute)
			w.want(t, "17>1 18>1")
		}},
		{"a kernel that fails", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.kernel.setFail(errors.New("no memory"))
			require.Zero(t, admit(w, 17, "c1"))
			require.Zero(t, admit(w, 18, "c1"))
			w.kernel.setFail(nil)
			time.Sleep(time.Minute)
			w.want(t, "17>1 18>1")
		}},
		{"a comparison is due", func(t *testing.T, w *routeWorld) {
			w.start(t)
			w.kernel.setDelay(5 * time.Millisecond)
			w.ack(16, "c1", time.Hour) // this round goes on while
			w.kernel.setListDelay(time.Second)
			w.kernel.lose()
			require.Equal(t, 10*time.Millisecond, admit(w, 17, "c1"))
			require.Equal(t, "16>1 17>1", w.kernel.String())
		}},
		{"before the first look", func(t *testing.T, w *routeWorld) {
			w.kernel.setListDelay(10 * time.Millisecond)
			w.start(t)
			require.Equal(t, 20*time.Millisecond, admit(w, 17, "c1"), "links and routes are listed")
			require.Equal(t, "17>1", w.kernel.String())
		}},
		{"a dry run", func(t *testing.T, w *routeWorld) {
			w.opts.DryRun = true
			w.start(t)
			require.Zero(t, admit(w, 17, "c1"))
			require.Empty(t, w.kernel.String())
		}},
		{"the keeper has ended", func(t *testing.T, w *routeWorld) {
			ctx, cancel := context.WithCancel(t.Context())
			w.keeper = New(w.opts, w.kernel, w.leases, nil, slog.New(slog.DiscardHandler))
			done := make(chan error, 1)
			go func() { done <- w.keeper.Run(ctx) }()
			synctest.Wait()
			cancel()
			require.NoError(t, <-done)
			require.Zero(t, admit(w, 17, "c1"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { tc.run(t, newRouteWorld()) }) })
	}
}

// Whatever happens in whatever order, told or not: a minute later the kernel has
// exactly the live leases on links that are up.
func TestRouteKeeperWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(3, 4))
		w := newRouteWorld()
		w.start(t)
		index := 10
		for step := range long.Times(t, 400, 1_000_000) {
			name := fmt.Sprintf("c%d", 1+rnd.IntN(4))
			last := byte(rnd.IntN(12))
			w.kernel.mu.Lock()
			var at Link
			for _, l := range w.kernel.links {
				if l.Name == name {
					at = l
				}
			}
			w.kernel.mu.Unlock()
			switch tell := rnd.IntN(4) > 0; rnd.IntN(8) {
			case 0, 1, 2:
				w.ack(last, name, time.Duration(1+rnd.IntN(300))*time.Second)
			case 3:
				w.release(last)
			case 4:
				if at.Index != 0 {
					at.Up = !at.Up
					w.kernel.set(at, tell)
				}
			case 5:
				if at.Index != 0 {
					at.Gone = true
					w.kernel.set(at, tell)
				}
				index++
				w.kernel.set(Link{Index: index, Name: name, Up: true}, tell)
			case 6:
				if at.Index != 0 {
					w.kernel.other(provision.OpRemove, route(last, at.Index), tell)
				}
			case 7:
				time.Sleep(time.Duration(rnd.IntN(100)) * time.Second)
			}
			if step%5 != 0 {
				continue
			}
			time.Sleep(61 * time.Second)
			synctest.Wait()
			want := map[Route]bool{}
			for _, l := range w.leases.m {
				for _, k := range w.kernel.links {
					if k.Up && k.Name == l.Interface && time.Now().Before(l.Expires) {
						want[Route{Addr: l.IP, Ifindex: k.Index, Table: 254}] = true
					}
				}
			}
			require.Equal(t, want, w.kernel.routes, "step %d", step)
			st := w.keeper.Status()
			require.Equal(t, len(want), st.Installed)
			require.Equal(t, st.Want, st.Installed+st.Waiting)
		}
	})
}
