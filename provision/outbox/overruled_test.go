package outbox

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A report is dropped if the ERP has got a third MAC since, and in no other case.
func TestReportsUndoNothingNewer(t *testing.T) {
	asked := func(m provision.MAC, err error) func(context.Context, provision.MACReport) (provision.MAC, error) {
		return func(context.Context, provision.MACReport) (provision.MAC, error) { return m, err }
	}
	cannot := errors.New("connection refused")
	accepted := func(m provision.MAC, ok bool) func(provision.MACReport) (provision.MAC, bool) {
		return func(provision.MACReport) (provision.MAC, bool) { return m, ok }
	}
	known := provision.Replaced{MAC: mac(1), Known: true}
	for _, tc := range []struct {
		name     string
		replaces provision.Replaced
		opts     Options
		sent     bool
		settled  bool
	}{
		{"the ERP has what it replaces", known, Options{Row: asked(mac(1), nil)}, true, false},
		{"it has the MAC already", known, Options{Row: asked(mac(2), nil)}, false, true},
		{"it has none", known, Options{Row: asked(provision.MAC{}, nil)}, true, false},
		{"it has a third", known, Options{Row: asked(mac(3), nil)}, false, false},
		{"it had none, and has one now", provision.Replaced{Known: true}, Options{Row: asked(mac(3), nil)}, false, false},
		{"a third that was sent from here", known, Options{Row: asked(mac(3), nil), Ours: func(_ provision.MACReport, m provision.MAC) bool { return m == mac(3) }}, true, false},
		{"the look counts more than the fetch", known, Options{Row: asked(mac(1), nil), Accepted: accepted(mac(3), true)}, true, false},
		{"no look, and the fetch has a third", known, Options{Row: asked(mac(1), cannot), Accepted: accepted(mac(3), true)}, false, false},
		{"no look, and the fetch has the same", known, Options{Row: asked(mac(3), cannot), Accepted: accepted(mac(1), true)}, true, false},
		{"no look, and no fetch since", known, Options{Row: asked(mac(3), cannot), Accepted: accepted(mac(3), false)}, true, false},
		{"nothing is known of before", provision.Replaced{}, Options{Row: asked(mac(3), nil), Accepted: accepted(mac(3), true)}, true, false},
		{"nobody to ask", known, Options{}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := tc.opts
				opts.Enabled, opts.Rate, opts.Burst = true, 1000, 1000
				var noted []string
				opts.Sending = func(r provision.MACReport) { noted = append(noted, "sending "+r.MAC.String()) }
				opts.Taken = func(r provision.MACReport, _ time.Time) { noted = append(noted, "taken "+r.MAC.String()) }
				o := start(t, opts)
				r := report(1, 2, time.Now())
				r.Replaces = tc.replaces
				require.NoError(t, o.Put(r))
				pass(time.Second)
				require.Empty(t, o.kept(t))
				st := o.Status(10)
				if tc.sent {
					assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take())
					assert.Equal(t, map[Result]int{ResultSent: 1}, o.seen.results)
					assert.Equal(t, []string{"sending 00:00:5e:00:53:02", "taken 00:00:5e:00:53:02"}, noted)
					assert.Empty(t, st.OverruledList)
					return
				}
				assert.Empty(t, o.erp.take())
				assert.Empty(t, noted)
				if tc.settled {
					assert.Equal(t, map[Result]int{ResultSettled: 1}, o.seen.results)
					assert.Empty(t, st.OverruledList)
					return
				}
				assert.Equal(t, map[Result]int{ResultOverruled: 1}, o.seen.results)
				assert.EqualValues(t, 1, st.Overruled)
				require.Len(t, st.OverruledList, 1)
				r, err := r.Normal()
				require.NoError(t, err)
				assert.Equal(t, Overrule{MACReport: r, DroppedAt: st.OverruledList[0].DroppedAt, Has: mac(3)}, st.OverruledList[0])
			})
		})
	}
}

// What waits for an ERP that is down is looked at when it is back; that it may have arrived is noted before.
func TestReportsUndoNothingNewerAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var has atomic.Pointer[provision.MAC]
		first, third := mac(1), mac(3)
		has.Store(&first)
		opts := fast
		opts.Row = func(context.Context, provision.MACReport) (provision.MAC, error) { return *has.Load(), nil }
		var noted atomic.Int32
		opts.Sending = func(provision.MACReport) { noted.Add(1) }
		opts.Taken = func(provision.MACReport, time.Time) { t.Error("nothing was taken") }
		o := start(t, opts)
		o.erp.set(0, down)
		r := report(1, 2, time.Now())
		r.Replaces = provision.Replaced{MAC: mac(1), Known: true}
		require.NoError(t, o.Put(r))
		pass(time.Second)
		require.Len(t, o.erp.take(), 1)
		require.EqualValues(t, 1, noted.Load())
		has.Store(&third)
		o.erp.set(0, nil)
		pass(time.Hour)
		require.Empty(t, o.erp.take())
		require.Equal(t, 1, o.seen.results[ResultOverruled])
	})
}

// The look is a call of its own within the rate.
func TestLooksKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		o := start(t, Options{Enabled: true, Rate: 1, Burst: 1, Row: func(context.Context, provision.MACReport) (provision.MAC, error) {
			looks.Add(1)
			return provision.MAC{}, nil
		}})
		for i := range 10 {
			r := report(i, 2, time.Now())
			r.Replaces.Known = true
			require.NoError(t, o.Put(r))
		}
		pass(10*time.Second + time.Millisecond)
		require.Equal(t, []int{5, 5}, []int{int(looks.Load()), len(o.erp.take())})
	})
}

func TestWhatFetchAndLeaseSay(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	r := report(1, 2, at)
	snap := func(began time.Time, src provision.Source) func() *provision.Snapshot {
		s, _ := provision.Build(provision.Input{Source: src, FetchedAt: began, Lines: []provision.Line{{Subscriber: 1001, MAC: mac(3), Addresses: provision.Hosts4(r.IP)}}})
		return func() *provision.Snapshot { return s }
	}
	for want, s := range map[bool]func() *provision.Snapshot{
		true:  snap(at.Add(time.Second), provision.SourceDirect),
		false: snap(at.Add(-time.Second), provision.SourceDirect),
	} {
		m, ok := Accepted(s)(r)
		require.Equal(t, []any{want, want}, []any{ok, m == mac(3)})
	}
	early := snap(at.Add(-time.Second), provision.SourceDirect)()
	m, ok := Accepted(func() *provision.Snapshot { return early.Accept(at.Add(time.Minute)) })(r)
	require.Equal(t, []any{mac(3), true}, []any{m, ok}, "it was held, and somebody accepted it since")
	_, ok = Accepted(func() *provision.Snapshot { return nil })(r)
	require.False(t, ok)

	tab := lease.New()
	tab.Store(lease.Record{IP: r.IP, MAC: mac(2), State: lease.StateBound, ERP: lease.ERPMACs{Direct: lease.ERPMAC{MAC: mac(1), At: 1}}})
	sending, taken := Note(tab, snap(at, provision.SourceComposed))
	late := r
	late.MAC = mac(4)
	sending(late)
	require.True(t, Ours(tab)(r, mac(4)))
	require.True(t, Ours(tab)(r, mac(1)))
	require.False(t, Ours(tab)(r, mac(3)))
	require.False(t, Ours(tab)(late, mac(1)), "of another client's lease nothing counts")
	taken(r, at)
	rec, _ := tab.Get(r.IP)
	require.Equal(t, lease.ERPMAC{MAC: mac(2), At: at.UnixNano()}, rec.ERP.Composed)
	require.Equal(t, mac(1), rec.ERP.Direct.MAC, "the other way of reading is not asked")
}

// erpRows are what the ERP has for the address of a report, as cards and as the snapshot in use show it.
type erpRows struct {
	snap atomic.Pointer[provision.Snapshot]
}

func (e *erpRows) fetch(owner provision.SubscriberID, m provision.MAC, port uint32) {
	s, _ := provision.Build(provision.Input{Source: provision.SourceDirect, FetchedAt: time.Now(), Lines: []provision.Line{
		{Subscriber: owner, Device: 9, Port: port, MAC: m, Addresses: provision.Hosts4(ip(1))},
	}})
	e.snap.Store(s)
}

func (e *erpRows) options(leases Leases) Options {
	opts := fast
	opts.Settled, opts.Accepted, opts.Ours, opts.Passed = Settled(e.snap.Load, leases), Accepted(e.snap.Load), Ours(leases), Passed(e.snap.Load)
	opts.Fetched = func() time.Time { return e.snap.Load().FetchedAt() }
	opts.Row = func(_ context.Context, r provision.MACReport) (provision.MAC, error) {
		return e.snap.Load().ByIP(r.IP).MAC, nil
	}
	return opts
}

func boundTo(m provision.MAC) *lease.Table {
	tab, now := lease.New(), time.Now()
	tab.Store(lease.Record{IP: ip(1), MAC: m, State: lease.StateBound, Subscriber: 1001, Start: now, Renewed: now, Expires: now.Add(24 * time.Hour)})
	return tab
}

// A report that waits is never written into the row of a customer who was given the address meanwhile.
func TestReportsAreNotAnotherCustomers(t *testing.T) {
	for _, tc := range []struct {
		name     string
		replaces provision.Replaced
		packet   provision.Packet
		owner    provision.SubscriberID
		sent     bool
	}{
		{"another customer", provision.Replaced{MAC: mac(1), Known: true}, provision.Packet{Device: 9, Port: 4}, 2002, false},
		{"nothing is known of before", provision.Replaced{}, provision.Packet{}, 2002, false},
		{"the next customer of the port", provision.Replaced{MAC: mac(1), Known: true}, provision.Packet{Device: 9, Port: 5}, 2002, true},
		{"the same customer", provision.Replaced{MAC: mac(1), Known: true}, provision.Packet{Device: 9, Port: 4}, 1001, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				erp := &erpRows{}
				erp.fetch(1001, mac(1), 4)
				o := start(t, erp.options(boundTo(mac(2))))
				o.erp.set(0, down)
				r := report(1, 2, time.Now())
				r.Replaces, r.Packet = tc.replaces, tc.packet
				require.NoError(t, o.Put(r))
				pass(time.Second)
				o.erp.take()
				erp.fetch(tc.owner, provision.MAC{}, 5)
				o.erp.set(0, nil)
				pass(2 * time.Hour)
				require.Empty(t, o.kept(t))
				if tc.sent {
					require.Len(t, o.erp.take(), 1)
					return
				}
				require.Empty(t, o.erp.take())
				require.Equal(t, 1, o.seen.results[ResultOverruled])
				st := o.Status(10)
				require.EqualValues(t, 1, st.Overruled)
				require.Len(t, st.OverruledList, 1)
				require.True(t, st.OverruledList[0].Passed)
				require.EqualValues(t, 2002, st.OverruledList[0].Owner)
				require.Equal(t, "the address is of customer 2002 by now, not of 1001", st.OverruledList[0].Reason())
			})
		})
	}
}

// A customer whose card has not got the address any more is waited for: the next whole fetch says whose it is.
func TestReportsWaitForTheFetchAfterAnEmptyCard(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fetch func(*erpRows)
		sent  int
		owner provision.SubscriberID
	}{
		{"it is another customer's", func(e *erpRows) { e.fetch(2002, provision.MAC{}, 5) }, 0, 2002},
		{"it is nobody's", func(e *erpRows) {
			s, _ := provision.Build(provision.Input{Source: provision.SourceDirect, FetchedAt: time.Now()})
			e.snap.Store(s)
		}, 0, 0},
		{"it is the customer's, whatever the card shows", func(e *erpRows) { e.fetch(1001, mac(1), 4) }, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				erp := &erpRows{}
				erp.fetch(1001, mac(1), 4)
				opts := erp.options(boundTo(mac(2)))
				opts.Row = func(context.Context, provision.MACReport) (provision.MAC, error) {
					return provision.MAC{}, provision.ErrNoRow
				}
				o := start(t, opts)
				pass(time.Second)
				r := report(1, 2, time.Now())
				r.Replaces = provision.Replaced{MAC: mac(1), Known: true}
				require.NoError(t, o.Put(r))
				pass(10 * time.Minute)
				require.Empty(t, o.erp.take())
				require.Len(t, o.kept(t), 1)
				tc.fetch(erp)
				pass(2 * time.Minute)
				require.Empty(t, o.kept(t))
				require.Len(t, o.erp.take(), tc.sent)
				require.Equal(t, 1-tc.sent, o.seen.results[ResultOverruled])
				if tc.sent == 0 {
					require.Equal(t, tc.owner, o.Status(1).OverruledList[0].Owner)
				}
			})
		})
	}
}
