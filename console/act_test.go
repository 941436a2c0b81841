package console

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/user"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/syncer"
)

// acts remembers what it was told.
type acts struct {
	mu   sync.Mutex // guards list
	list []audit.Record
}

func (a *acts) Add(r audit.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, r)
}

// take returns the one record since the last call.
func (a *acts) take(t *testing.T) audit.Record {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	require.Len(t, a.list, 1)
	r := a.list[0]
	a.list = nil
	return r
}

// Whoever acts over the socket is named as the kernel knows them.
func TestActsAreRecorded(t *testing.T) {
	w, told := newWorld(t), &acts{}
	f := &fakeACL{now: w.Now}
	w.ACL, w.Audit = &ACLDeps{Wishes: f, Kernel: f, Maintenance: f, Exempt: f.exempt}, told
	c := serveWorld(t, w)
	me, err := user.Current()
	require.NoError(t, err)
	who := audit.Who{By: audit.BySocket, Process: &audit.Process{
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), User: me.Username}}

	_, err = c.SetState(t.Context(), 1001, provision.StatePause)
	require.NoError(t, err)
	assert.Equal(t, audit.Record{Time: w.now, Act: audit.CustomerState, Who: who, Result: audit.Done, What: audit.What{Customer: 1001, State: "pause",
		Before: "active", Addresses: []netip.Addr{ip("198.51.100.11"), ip("198.51.100.21")}}}, told.take(t))

	_, err = c.AcceptHeld(t.Context(), "")
	require.ErrorContains(t, err, syncer.ErrNothingHeld.Error())
	assert.Equal(t, audit.Record{Time: w.now, Act: audit.GuardAccept, Who: who, Result: audit.Refused, Error: syncer.ErrNothingHeld.Error()}, told.take(t))
	w.syncer.mu.Lock()
	w.syncer.guard.Held = &syncer.HeldStatus{Fingerprint: "abcd", Decision: syncer.GuardDecision{Hold: true, Reason: "half is gone"}}
	w.syncer.mu.Unlock()
	_, err = c.RejectHeld(t.Context(), "abcd")
	require.NoError(t, err)
	assert.Equal(t, audit.Record{Time: w.now, Act: audit.GuardReject, Who: who, Result: audit.Done,
		What: audit.What{Fingerprint: "abcd", Held: "half is gone"}}, told.take(t))

	m, err := c.OpenACL(t.Context(), time.Minute, "work")
	require.NoError(t, err)
	got := told.take(t)
	assert.True(t, got.What.Until.Equal(m.Until))
	got.What.Until = time.Time{}
	assert.Equal(t, audit.Record{Time: w.now, Act: audit.ACLOpen, Who: who, Result: audit.Done, What: audit.What{Seconds: 60, Reason: "work"}}, got)
	closed, err := c.CloseACL(t.Context())
	require.NoError(t, err)
	assert.Equal(t, audit.Record{Time: w.now, Act: audit.ACLClose, Who: who, Result: audit.Done, What: audit.What{WasOpen: &closed.WasOpen}}, told.take(t))
	_, err = c.VerifyACL(t.Context())
	require.NoError(t, err)
	assert.Equal(t, audit.ACLVerify, told.take(t).Act)

	_, err = c.Guard(t.Context())
	require.NoError(t, err)
	_, err = c.ACL(t.Context())
	require.NoError(t, err)
	told.mu.Lock()
	defer told.mu.Unlock()
	assert.Empty(t, told.list, "who looks does nothing")
}

func TestResultsOfActs(t *testing.T) {
	for name, c := range map[string]struct {
		body    string
		arrange func(w *world)
		want    audit.Result
		dry     [2]bool
	}{
		"done":                 {want: audit.Done},
		"refused by the ERP":   {arrange: func(w *world) { w.erp.err = fmt.Errorf("no: %w", provision.ErrRefused) }, want: audit.Refused},
		"ERP down":             {arrange: func(w *world) { w.erp.err = errors.New("unavailable") }, want: audit.Failed},
		"kernel lags":          {arrange: func(w *world) { w.enforcer.err = errors.New("no buffer space") }, want: audit.Partial},
		"kernel wants nothing": {arrange: func(w *world) { w.enforcer.err = access.ErrNoSnapshot }, want: audit.Partial},
		"bad request":          {body: "{}", want: audit.Refused},
		"cannot":               {arrange: func(w *world) { w.ERP = nil }, want: audit.Refused},
		"dry run":              {arrange: func(w *world) { w.DryRun = true }, want: audit.Refused, dry: [2]bool{true, false}},
		"dry kernel":           {arrange: func(w *world) { w.enforcer.status.DryRun = true }, want: audit.Done, dry: [2]bool{false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			told := &acts{}
			w.Audit = told
			if c.arrange != nil {
				c.arrange(w)
			}
			if c.body == "" {
				c.body = `{"state":"pause"}`
			}
			rec := httptest.NewRecorder()
			NewControl(w.Deps).ServeHTTP(rec, httptest.NewRequest("POST", "/v1/customer/1001/state", strings.NewReader(c.body)))
			r := told.take(t)
			assert.Equal(t, c.want, r.Result)
			assert.Equal(t, c.dry, [2]bool{r.DryRun, r.KernelDryRun})
			assert.Equal(t, rec.Code == 200, r.Error == "")
			assert.EqualValues(t, 1001, r.What.Customer)
			assert.Nil(t, r.Who.Process, "nobody is known to have asked")
		})
	}
}
