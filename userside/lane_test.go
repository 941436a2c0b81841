package userside

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hangs is a transport that answers all but some actions, which it leaves waiting until their request is given up.
func hangs(actions ...string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		for _, a := range actions {
			if r.URL.Query().Get("action") == a {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
		}
		return response(200, `{"result":"OK","data":[]}`), nil
	}
}

// ofLane is one call of each lane.
func ofLane(c *Client) map[Lane]func() error {
	active := 2
	return map[Lane]func() error{
		LaneBulk:    func() error { _, err := c.CustomerBindings(ctx); return err },
		LaneQuick:   func() error { _, err := c.CustomerIDs(ctx, CustomerFilter{State: &active}); return err },
		LaneUrgent:  func() error { _, err := c.Customers(WithLane(ctx, LaneUrgent), []int64{1, 2}); return err },
		LaneReport:  func() error { return c.SetMACByIP(ctx, ip("192.0.2.7"), mac("00005e005301")) },
		LaneCommand: func() error { return c.ChangeState(ctx, 1, 1) },
	}
}

// An answer that does not come holds up the calls of its lane and no others.
func TestLanesDoNotWaitForEachOther(t *testing.T) {
	action := map[Lane]string{LaneBulk: "get_ip_port_device_commutation", LaneQuick: "get_customers_id", LaneUrgent: "get_data", LaneReport: "set_mac_by_ip", LaneCommand: "state_change"}
	for hung := range Lane(laneCount) {
		t.Run(hung.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTimeClient(t, Options{}, hangs(action[hung]))
				calls := ofLane(c)
				first, second := make(chan error, 1), make(chan error, 1)
				go func() { first <- calls[hung]() }()
				synctest.Wait()
				for lane, call := range calls {
					if lane != hung {
						began := time.Now()
						require.NoError(t, call())
						require.Zero(t, time.Since(began), "%s waits for %s", lane, hung)
					}
				}
				began := time.Now()
				go func() { second <- calls[hung]() }()
				want := map[Lane]time.Duration{LaneBulk: 30 * time.Second, LaneQuick: 10 * time.Second, LaneUrgent: 10 * time.Second, LaneReport: 30 * time.Second, LaneCommand: 30 * time.Second}[hung]
				require.Contains(t, errorOf(t, <-first, ErrUnavailable).Text, "no answer within "+want.String())
				require.Equal(t, want, time.Since(began))
				require.ErrorIs(t, <-second, ErrUnavailable)
				require.Equal(t, 2*want, time.Since(began), "it had its turn afterwards")
			})
		})
	}
	t.Run("no longer than timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTimeClient(t, Options{Timeout: 4 * time.Second}, hangs("get_customers_id"))
			require.Contains(t, errorOf(t, ofLane(c)[LaneQuick](), ErrUnavailable).Text, "no answer within 4s")
		})
	})
}

// The reads of a whole fetch are in its lane, whatever they are. Writes are commands or reports all the same.
func TestLaneOfTheCaller(t *testing.T) {
	bulk := WithLane(ctx, LaneBulk)
	for label, want := range map[action][2]Lane{
		actCustomerBindings: {LaneBulk, LaneBulk}, actDeviceGetData: {LaneBulk, LaneBulk}, actCommutationGetData: {LaneBulk, LaneBulk}, actUserList: {LaneBulk, LaneBulk},
		actCustomerIDs: {LaneQuick, LaneBulk}, actCustomerGetData: {LaneQuick, LaneBulk}, actSystemInfo: {LaneQuick, LaneBulk},
		actCustomerStateChange: {LaneCommand, LaneCommand}, actCustomerSetMAC: {LaneReport, LaneReport},
	} {
		assert.Equal(t, want, [2]Lane{label.row().lane(ctx), label.row().lane(bulk)}, label)
	}
	assert.Equal(t, LaneUrgent, actCustomerBindings.row().lane(WithLane(bulk, LaneUrgent)), "the innermost counts")
}

// The ERP never has more requests than the configuration says.
func TestRequestsInFlight(t *testing.T) {
	for _, bulk := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			var now, most atomic.Int32
			c := newTimeClient(t, Options{MaxConcurrent: bulk}, func(*http.Request) (*http.Response, error) {
				n := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Second)
				return response(200, `{"result":"OK","data":[]}`), nil
			})
			var wg sync.WaitGroup
			for range 8 {
				for _, call := range ofLane(c) {
					wg.Go(func() { assert.NoError(t, call()) })
				}
			}
			wg.Wait()
			require.EqualValues(t, bulk+4, most.Load(), "max_concurrent long ones, and one of each other kind")
		})
	}
}

// What hangs can be named while it hangs, and what the server has asked for.
func TestPending(t *testing.T) {
	t.Run("an answer that does not come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTimeClient(t, Options{Timeout: time.Minute, Retries: 1, BackoffBase: 8 * time.Second, BackoffMax: 8 * time.Second}, hangs("get_ip_port_device_commutation"))
			require.Empty(t, c.Pending())
			gone, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { _, _ = c.CustomerBindings(gone) })
				time.Sleep(time.Second)
			}
			got := c.Pending()
			require.Len(t, got, 2)
			require.False(t, got[0].Slow(time.Now()))
			time.Sleep(41 * time.Second)
			got = c.Pending()
			require.True(t, got[0].Slow(time.Now()))
			require.Equal(t, "bulk", got[0].Lane)
			require.Equal(t, "customer.get_ip_port_device_commutation has been waiting 43s for its answer", got[0].Text(time.Now()))
			require.Equal(t, "customer.get_ip_port_device_commutation has been waiting 42s for its turn", got[1].Text(time.Now()))
			time.Sleep(18 * time.Second)
			require.Regexp(t, `^customer\.get_ip_port_device_commutation failed, the next attempt is made in [3-7]s: unavailable: no answer within 1m0s$`, c.Pending()[0].Text(time.Now()))
			time.Sleep(time.Minute) // of the second call, which had its turn
			synctest.Wait()
			require.Regexp(t, `has been waiting \d+s for its answer \(attempt 2; the one before: unavailable: no answer within 1m0s\)$`, c.Pending()[0].Text(time.Now()))
			cancel()
			wg.Wait()
			require.Empty(t, c.Pending())
		})
	})
	for name, header := range map[string]func() string{
		"seconds": func() string { return "40" },
		"date":    func() string { return time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run("Retry-After in "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				c := newTimeClient(t, Options{Retries: 1, BackoffBase: time.Millisecond}, func(*http.Request) (*http.Response, error) {
					if n++; n == 1 {
						return response(429, `{"error":"too many requests"}`, "Retry-After", header()), nil
					}
					return response(200, `{"result":"OK","data":[]}`), nil
				})
				done := make(chan error)
				go func() { _, err := c.CustomerBindings(ctx); done <- err }()
				time.Sleep(5 * time.Second)
				got := c.Pending()
				require.Len(t, got, 1)
				require.True(t, got[0].Slow(time.Now()))
				require.Equal(t, "customer.get_ip_port_device_commutation failed, the next attempt is made in 35s, as the server asks (Retry-After): "+
					"unavailable: http status 429: too many requests", got[0].Text(time.Now()))
				require.NoError(t, <-done)
				require.Empty(t, c.Pending())
			})
		})
	}
}
