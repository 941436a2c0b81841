package outbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func lost(netip.Addr, provision.MAC) error {
	return fmt.Errorf("%w: set_mac_by_ip: connection closed", provision.ErrUncertain)
}

// Each packet of a client leads to a report until a fetch has its MAC: the ERP is told once.
func TestTheERPIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none provision.MAC
		opts := damping(&none)
		var fetched atomic.Pointer[time.Time]
		began := time.Now().Add(-time.Second)
		fetched.Store(&began)
		opts.Fetched = func() time.Time { return *fetched.Load() }
		o := start(t, opts)
		for range 10 {
			o.put(t, 1, 1)
		}
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:01"}, o.erp.take())
		assert.Equal(t, map[Result]int{ResultSent: 1, ResultSettled: 9}, o.seen.results)
		assert.Empty(t, o.kept(t))

		o.put(t, 2, 1)
		assert.Len(t, o.erp.take(), 1, "another address")
		o.put(t, 1, 2)
		assert.Len(t, o.erp.take(), 1, "another MAC")
		o.put(t, 1, 2)
		assert.Empty(t, o.erp.take())

		later := time.Now()
		fetched.Store(&later)
		o.put(t, 1, 2)
		assert.Len(t, o.erp.take(), 1, "a fetch says otherwise")
	})
}

// After a report of which nobody knows whether it was taken, the one before may be gone.
func TestWhatIsDoubtedIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none provision.MAC
		opts := damping(&none)
		opts.Fetched = func() time.Time { return time.Time{} }
		o := start(t, opts)
		o.put(t, 1, 1)
		o.erp.set(0, lost)
		o.put(t, 1, 2)
		require.Len(t, o.erp.take(), 2)
		o.erp.set(0, nil)
		o.put(t, 1, 1)
		pass(DampTime)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:01"}, o.erp.take())
	})
}

// What became of a report whose answer was lost is looked up; it is sent again only if the ERP does not have it.
func TestLostAnswersAreLookedUp(t *testing.T) {
	cannot := errors.New("connection refused")
	for _, tc := range []struct {
		name    string
		has     func(call int) (provision.MAC, error) // of each look
		calls   int
		results map[Result]int
		told    []string // of the audit record
	}{
		{"it was taken", func(int) (provision.MAC, error) { return mac(2), nil }, 1, map[Result]int{ResultSent: 1}, []string{"1 <nil>"}},
		{"it was taken late", func(call int) (provision.MAC, error) { return mac(1 + min(call, 1)), nil }, 1, map[Result]int{ResultFailed: 1, ResultSent: 1}, []string{"1 uncertain", "1 <nil>"}},
		{"the ERP cannot be read at first", func(call int) (provision.MAC, error) {
			if call < 2 {
				return provision.MAC{}, cannot
			}
			return mac(2), nil
		}, 2, map[Result]int{ResultFailed: 1, ResultSent: 1}, []string{"1 uncertain", "2 <nil>"}},
		{"it never has it", func(int) (provision.MAC, error) { return mac(1), nil }, maxUncertain, map[Result]int{ResultFailed: maxUncertain - 1, ResultRefused: 1}, []string{"1 uncertain", "3 refused"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var looks atomic.Int32
				var told []string
				opts := fast
				opts.Row = func(context.Context, provision.MACReport) (provision.MAC, error) {
					return tc.has(int(looks.Add(1)) - 1)
				}
				opts.Told = func(_ provision.MACReport, attempts int, err error) {
					what := fmt.Sprint(err)
					switch {
					case errors.Is(err, provision.ErrRefused):
						what = "refused"
					case errors.Is(err, provision.ErrUncertain):
						what = "uncertain"
					}
					told = append(told, fmt.Sprint(attempts, " ", what))
				}
				o := start(t, opts)
				o.erp.set(0, lost)
				r := report(1, 2, time.Now())
				require.NoError(t, o.Put(r))
				pass(time.Second)
				r.Replaces = provision.Replaced{MAC: mac(1), Known: true} // from the second call on it is looked at before
				if len(o.kept(t)) > 0 {
					r.At = r.At.Add(time.Second)
					require.NoError(t, o.Put(r))
				}
				pass(time.Hour)
				assert.Len(t, o.erp.take(), tc.calls)
				assert.Equal(t, tc.results, o.seen.results)
				assert.Equal(t, tc.told, told)
				assert.Empty(t, o.kept(t))
			})
		})
	}
}

// A report of which nobody knows keeps no other one waiting while the ERP answers.
func TestUncertainReportsHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := fast
		opts.Row = func(context.Context, provision.MACReport) (provision.MAC, error) { return mac(1), nil }
		o := start(t, opts)
		o.erp.set(0, lost)
		for i := range 50 {
			require.NoError(t, o.Put(report(i, 2, time.Now())))
		}
		pass(2 * time.Second)
		assert.Len(t, o.erp.take(), 50)
	})
}
