package outbox

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// A report of another client's MAC is dropped and shown once, however often it comes; it is sent as soon as the MAC is nobody else's.
func TestForeignMACsAreNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var theirs atomic.Bool
		theirs.Store(true)
		opts := fast
		opts.Foreign = func(r provision.MACReport) (provision.SubscriberID, netip.Addr, bool) {
			return 1008, netip.MustParseAddr("100.64.0.8"), theirs.Load() && r.MAC == mac(2)
		}
		opts.Sending = func(r provision.MACReport) { assert.False(t, theirs.Load() && r.MAC == mac(2)) }
		o := start(t, opts)
		for range 3 {
			require.NoError(t, o.Put(report(1, 2, time.Now())))
			pass(time.Minute)
		}
		require.NoError(t, o.Put(report(3, 4, time.Now())))
		pass(time.Minute)
		assert.Equal(t, []string{"100.64.0.3 00:00:5e:00:53:04"}, o.erp.take())
		assert.Equal(t, map[Result]int{ResultForeign: 3, ResultSent: 1}, o.seen.results)
		require.Empty(t, o.kept(t))
		st := o.Status(10)
		assert.EqualValues(t, 3, st.Foreign)
		require.Len(t, st.ForeignList, 1)
		x := st.ForeignList[0]
		assert.Equal(t, time.Now().Add(-2*time.Minute).Unix(), x.DroppedAt.Unix(), "the last time")
		assert.Equal(t, mac(2), x.MAC)
		assert.Equal(t, "the MAC is that of customer 1008 (100.64.0.8), who is found by it", x.Reason())
		assert.Equal(t, "the MAC is that of a guest, who is found by it", (&Foreign{}).Reason())

		theirs.Store(false)
		require.NoError(t, o.Put(report(1, 2, time.Now())))
		pass(time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take())
	})
}

// What waited for the end of the hour, or for an ERP that was down, is looked at when it would be sent.
func TestForeignMACsAreSeenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var theirs atomic.Bool
		opts := fast
		opts.Foreign = func(provision.MACReport) (provision.SubscriberID, netip.Addr, bool) {
			return 0, netip.Addr{}, theirs.Load()
		}
		o := start(t, opts)
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(1, 2, time.Now())))
		pass(time.Second)
		require.Len(t, o.erp.take(), 1)
		theirs.Store(true)
		o.erp.set(0, nil)
		pass(time.Hour)
		assert.Empty(t, o.erp.take())
		assert.Equal(t, 1, o.seen.results[ResultForeign])
		assert.Zero(t, o.Status(0).Depth)
	})
}
