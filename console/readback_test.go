package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
)

// records are an Audit.
type records []audit.Record

func (r *records) Add(rec audit.Record) { *r = append(*r, rec) }

// A change whose answer was lost is sent once and looked for on the card: what is
// found reaches the kernel, what is not is said to be unknown and read again later.
func TestSetStateWithoutAnAnswer(t *testing.T) {
	lost := fmt.Errorf("%w: userside: customer.state_change: unavailable: no answer within 30s", provision.ErrUncertain)
	const detail = "userside: customer.state_change: unavailable: no answer within 30s"
	for name, tt := range map[string]struct {
		has     func(since time.Duration) (bool, error)
		outcome StateOutcome
		took    [2]time.Duration // at least and at most
		result  audit.Result
	}{
		"at once":             {func(time.Duration) (bool, error) { return true, nil }, StateFound, [2]time.Duration{0, 0}, audit.Done},
		"seven seconds later": {func(since time.Duration) (bool, error) { return since >= 7*time.Second, nil }, StateFound, [2]time.Duration{7 * time.Second, 12 * time.Second}, audit.Done},
		"the card cannot be read at first": {func(since time.Duration) (bool, error) {
			if since < 3*time.Second {
				return false, errors.New("unavailable")
			}
			return true, nil
		}, StateFound, [2]time.Duration{3 * time.Second, 6 * time.Second}, audit.Done},
		"never": {func(time.Duration) (bool, error) { return false, nil }, StateUncertain, [2]time.Duration{readBackFor, readBackFor}, audit.Uncertain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var told records
				w.Audit = &told
				begin := time.Now()
				w.erp.err = lost
				w.erp.has = func() (bool, error) { return tt.has(time.Since(begin)) }
				rec := httptest.NewRecorder()
				NewControl(w.Deps).ServeHTTP(rec, httptest.NewRequest("POST", "/v1/customer/1001/state", strings.NewReader(`{"state":"pause"}`)))
				took := time.Since(begin)
				require.Equal(t, http.StatusOK, rec.Code, rec.Body)
				var ch StateChange
				require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &ch))
				assert.Equal(t, tt.outcome, ch.Outcome)
				assert.Equal(t, detail, ch.Detail)
				assert.Equal(t, []provision.State{provision.StatePause}, w.erp.calls, "no change is sent twice")
				assert.GreaterOrEqual(t, took, tt.took[0])
				assert.LessOrEqual(t, took, tt.took[1])
				require.Len(t, told, 1)
				assert.Equal(t, tt.result, told[0].Result)
				assert.Equal(t, detail, told[0].Error)
				if tt.outcome == StateFound {
					assert.Equal(t, []provision.State{provision.StatePause}, w.syncer.overrides)
					assert.Equal(t, 1, w.enforcer.synced)
					return
				}
				assert.Empty(t, w.syncer.overrides, "nothing is blocked on a guess")
				assert.Zero(t, w.enforcer.synced)
				assert.Equal(t, []provision.SubscriberID{1001}, w.syncer.hints)
			})
		})
	}
}

// An ERP that hangs, with cards too, does not hold the operator beyond changeTimeout.
func TestSetStateOfAnERPThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ERP = hungERP{}
		begin := time.Now()
		rec := httptest.NewRecorder()
		NewControl(w.Deps).ServeHTTP(rec, httptest.NewRequest("POST", "/v1/customer/1001/state", strings.NewReader(`{"state":"pause"}`)))
		require.Equal(t, http.StatusOK, rec.Code, rec.Body)
		require.Contains(t, rec.Body.String(), `"outcome": "uncertain"`)
		require.Equal(t, askFor+readBackFor, time.Since(begin))
		require.Less(t, askFor+readBackFor, changeTimeout)
	})
}

type hungERP struct{}

func (hungERP) ChangeState(ctx context.Context, _ provision.SubscriberID, _ provision.State) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", provision.ErrUncertain, ctx.Err())
}

func (hungERP) HasState(ctx context.Context, _ provision.SubscriberID, _ provision.State) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

// slowERP loses the answer to each change of some time, and shows the new state on no card.
type slowERP struct {
	took  time.Duration
	mu    sync.Mutex
	calls []provision.SubscriberID
}

func (e *slowERP) ChangeState(ctx context.Context, id provision.SubscriberID, _ provision.State) error {
	e.mu.Lock()
	e.calls = append(e.calls, id)
	e.mu.Unlock()
	select {
	case <-time.After(e.took):
	case <-ctx.Done():
	}
	return fmt.Errorf("%w: no answer", provision.ErrUncertain)
}

func (*slowERP) HasState(context.Context, provision.SubscriberID, provision.State) (bool, error) {
	return false, nil
}

// A change waits for the ERP's calls of those before it and not for what becomes of them, and its own time begins with its turn.
// Changes of one subscriber come one after another as a whole.
func TestSetStateTakesTurns(t *testing.T) {
	for name, tt := range map[string]struct {
		took time.Duration // of each call
		ids  []int
		ends []time.Duration
	}{
		"of different subscribers": {20 * time.Second, []int{1001, 1002, 1003}, []time.Duration{50 * time.Second, 70 * time.Second, 90 * time.Second}},
		"of one":                   {20 * time.Second, []int{1001, 1001}, []time.Duration{50 * time.Second, 100 * time.Second}},
		"of an ERP that hangs":     {time.Hour, []int{1001, 1002}, []time.Duration{askFor + readBackFor, 2*askFor + readBackFor}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				erp := &slowERP{took: tt.took}
				w.ERP = erp
				h, begin := NewControl(w.Deps), time.Now()
				var wg sync.WaitGroup
				for i, id := range tt.ids {
					wg.Go(func() {
						rec := httptest.NewRecorder()
						h.ServeHTTP(rec, httptest.NewRequest("POST", fmt.Sprintf("/v1/customer/%d/state", id), strings.NewReader(`{"state":"pause"}`)))
						assert.Equal(t, http.StatusOK, rec.Code, rec.Body)
						assert.Contains(t, rec.Body.String(), `"outcome": "uncertain"`)
						assert.Equal(t, tt.ends[i], time.Since(begin), "change %d", i)
					})
					synctest.Wait()
				}
				wg.Wait()
				require.Len(t, erp.calls, len(tt.ids))
			})
		})
	}
	t.Run("too many before it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			erp := &slowERP{took: time.Hour}
			w.ERP = erp
			h, begin := NewControl(w.Deps), time.Now()
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() {
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, httptest.NewRequest("POST", fmt.Sprintf("/v1/customer/%d/state", 1001+i), strings.NewReader(`{"state":"pause"}`)))
					if i == 2 {
						assert.Equal(t, http.StatusServiceUnavailable, rec.Code)
						assert.Contains(t, rec.Body.String(), "nothing was done")
						assert.Equal(t, turnTimeout, time.Since(begin))
					}
				})
				synctest.Wait()
			}
			wg.Wait()
			require.Len(t, erp.calls, 2)
		})
	})
}
