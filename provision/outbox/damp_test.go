package outbox

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// damping are options by which the ERP has a MAC for every address, or none, as the pointer says.
func damping(has *provision.MAC) Options {
	o := fast
	o.Changes = func(r provision.MACReport) bool { return !has.IsZero() && *has != r.MAC }
	return o
}

func (o *outboxTest) put(t *testing.T, i, m int) {
	t.Helper()
	require.NoError(t, o.Put(report(i, m, time.Now())))
	pass(time.Second)
}

// Of changes of one address the ERP hears one an hour: then of the newest.
func TestChangesOfAnAddressWaitAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := mac(1)
		o := start(t, damping(&known))
		begin := time.Now()
		o.put(t, 1, 2)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take(), "the first change")
		pass(10 * time.Minute)
		o.put(t, 1, 3)
		assert.Empty(t, o.erp.take())
		waits := o.Status(1).Entries
		require.Len(t, waits, 1)
		e := waits[0]
		assert.True(t, e.Damped)
		assert.Equal(t, begin.Add(DampTime).UnixMilli(), e.NextTry.UnixMilli())
		pass(10 * time.Minute)
		o.put(t, 1, 4)
		o.put(t, 1, 4) // again, as at a renewal
		o.put(t, 2, 4)
		assert.Equal(t, []string{"100.64.0.2 00:00:5e:00:53:04"}, o.erp.take(), "other addresses do not wait")
		assert.True(t, o.HasTold(ip(1), mac(2)))
		assert.False(t, o.HasTold(ip(1), mac(4)), "it waits")
		assert.False(t, o.HasTold(ip(2), mac(2)), "another address")
		require.Len(t, o.kept(t), 1, "what waits is on disk")
		pass(time.Until(begin.Add(DampTime - time.Second)))
		assert.Empty(t, o.erp.take())
		pass(2 * time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:04"}, o.erp.take())
		assert.Empty(t, o.kept(t))
		assert.Equal(t, map[Result]int{ResultSent: 3, ResultDamped: 2}, o.seen.results)
		assert.EqualValues(t, 2, o.Status(0).Damped)
		pass(DampTime)
		o.put(t, 1, 5)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:05"}, o.erp.take())
	})
}

// The first MAC of an address is no change, so the router after it need not wait; the next one does,
// also while the snapshot is behind.
func TestFirstMACIsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known provision.MAC
		o := start(t, damping(&known))
		o.put(t, 1, 1)
		assert.Len(t, o.erp.take(), 1, "learnt")
		o.put(t, 1, 1)
		assert.Len(t, o.erp.take(), 1, "the same once more")
		o.put(t, 1, 2)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take(), "swapped within the hour")
		o.put(t, 1, 1)
		assert.Empty(t, o.erp.take(), "and back")
		assert.Equal(t, map[Result]int{ResultSent: 3, ResultDamped: 1}, o.seen.results)
	})
}

// What the ERP did not take is no write.
func TestOnlyWritesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := mac(1)
		o := start(t, damping(&known))
		o.erp.set(0, refuse)
		o.put(t, 1, 2)
		o.put(t, 1, 3)
		assert.Len(t, o.erp.take(), 2)
		o.erp.set(0, down)
		o.put(t, 1, 4)
		o.erp.set(0, nil)
		pass(time.Minute)
		assert.NotEmpty(t, o.erp.take())
		assert.Empty(t, o.kept(t), "one that found no ERP is sent again")
		o.put(t, 1, 5)
		assert.Empty(t, o.erp.take())
	})
}

// What waited and is not true any more is not sent: it comes again if it is.
func TestOvertakenReportsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := mac(1)
		tab := lease.New()
		opts := damping(&known)
		opts.Overtaken = Overtaken(tab)
		o := start(t, opts)
		tab.Store(lease.Record{IP: ip(1), MAC: mac(1), State: lease.StateBound, Start: time.Now(), Renewed: time.Now(), Expires: time.Now().Add(3 * time.Hour)})
		o.put(t, 1, 2)
		assert.Len(t, o.erp.take(), 1, "one that does not wait is sent, whoever has the address: with mac_change: report it leads to the lease")
		o.put(t, 1, 3)
		pass(DampTime)
		assert.Empty(t, o.erp.take())
		assert.Empty(t, o.kept(t))
		assert.Equal(t, map[Result]int{ResultSent: 1, ResultDamped: 1, ResultSettled: 1}, o.seen.results)
	})
}

// A restart forgets what was sent: one more call.
func TestRestartSendsWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := mac(1)
		o := start(t, damping(&known))
		o.put(t, 1, 2)
		o.put(t, 1, 3)
		require.Len(t, o.erp.take(), 1)
		o.stop()
		next, err := Open(o.store, damping(&known), o.erp, nil, quiet())
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- next.Run(t.Context()) }()
		pass(time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:03"}, o.erp.take())
	})
}

// What is remembered is of the last hours.
func TestTellingsAreForgotten(t *testing.T) {
	var known provision.MAC
	o := &Outbox{opts: damping(&known)}
	now := time.Now()
	for i := range 100 {
		o.tell(report(i, 1, now), false, now.Add(time.Duration(i)*time.Hour))
	}
	assert.LessOrEqual(t, len(o.told.last), 2)
}

func TestChangesAndOvertaken(t *testing.T) {
	now := time.Now()
	snapshot := func(m provision.MAC) func() *provision.Snapshot {
		s, _ := provision.Build(provision.Input{Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(ip(1)), MAC: m}}})
		return func() *provision.Snapshot { return s }
	}
	r := report(1, 1, now)
	assert.False(t, Changes(snapshot(provision.MAC{}))(r), "the first MAC")
	assert.False(t, Changes(snapshot(mac(1)))(r), "the ERP has it")
	assert.True(t, Changes(snapshot(mac(2)))(r))
	assert.False(t, Changes(snapshot(mac(2)))(report(2, 1, now)), "an address that it does not have")
	assert.False(t, Changes(func() *provision.Snapshot { return nil })(r))

	held := func(m provision.MAC, end time.Duration) *lease.Table {
		tab := lease.New()
		tab.Store(lease.Record{IP: ip(1), MAC: m, State: lease.StateBound, Renewed: now, Expires: now.Add(end)})
		return tab
	}
	assert.True(t, Overtaken(held(mac(2), time.Hour))(r))
	assert.False(t, Overtaken(held(mac(2), -time.Hour))(r), "it is over")
	assert.False(t, Overtaken(held(mac(1), time.Hour))(r))
	assert.False(t, Overtaken(lease.New())(r))
}
