package emulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// hookTimeout is how long the handler inside the ERP waits for the agent, since
// a person waits for the ERP's page meanwhile.
const hookTimeout = 500 * time.Millisecond

// Secret is a text that no format shows.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[redacted]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[redacted]" }

// HookStatus tells how hints went.
type HookStatus struct {
	URL       string `json:"url"`
	Sent      int    `json:"sent"`
	Failed    int    `json:"failed"`
	LastError string `json:"last_error,omitempty"`
}

// hook calls the agent's endpoint of hints on each change of a customer, as the
// PHP handler inside the ERP would: POST with {"customer_id":N,"nonce":"..."}, signed with
// HMAC-SHA256 over timestamp, a dot and the body. It hears of changes through a
// feed of its own, so that no answer of the API waits for it; what does not fit
// into the feed's buffer is lost, as a hint may be.
type hook struct {
	url    string
	secret Secret
	now    func() time.Time
	log    *slog.Logger
	client *http.Client
	end    context.CancelFunc
	done   chan struct{} // closed when run has ended

	mu     sync.Mutex
	status HookStatus // guarded by mu
}

// newHook returns nil when no URL is given.
func newHook(o Options, now func() time.Time, log *slog.Logger) (*hook, error) {
	if o.HookURL == "" {
		return nil, nil
	}
	u, err := url.Parse(o.HookURL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("hook url: want http:// or https:// with a host")
	case u.User != nil:
		return nil, errors.New("hook url: want no user name in it")
	case o.HookSecret == "":
		return nil, errors.New("hook url: a hook secret must be given too")
	}
	return &hook{
		url: o.HookURL, secret: o.HookSecret, now: now, log: log, done: make(chan struct{}),
		status: HookStatus{URL: o.HookURL},
		client: &http.Client{
			Timeout:       hookTimeout,
			Transport:     &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// start begins to listen to f.
func (h *hook) start(f *feed) {
	if h == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.end = cancel
	changes := f.subscribe(ctx)
	go func() {
		defer close(h.done)
		for c := range changes {
			if c.Customer == 0 || ctx.Err() != nil {
				continue
			}
			if err := h.send(ctx, c.Customer); ctx.Err() == nil {
				h.report(err)
			}
		}
	}()
}

// stop ends a hint under way and waits for the goroutine.
func (h *hook) stop() {
	if h == nil || h.end == nil {
		return
	}
	h.end()
	<-h.done
	h.client.CloseIdleConnections()
}

func (h *hook) send(ctx context.Context, customer int64) error {
	// The agent takes a request that it has seen for a replay; the nonce tells
	// two changes of one second apart.
	body := fmt.Appendf(nil, `{"customer_id":%d,"nonce":%q}`, customer, rand.Text())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	stamp := strconv.FormatInt(h.now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(h.secret))
	_, _ = fmt.Fprintf(mac, "%s.%s", stamp, body) // never fails
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Usher-Timestamp", stamp)
	req.Header.Set("X-Usher-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the agent answered %s", resp.Status)
	}
	return nil
}

func (h *hook) report(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.status.Sent++
		return
	}
	h.status.Failed++
	h.status.LastError = err.Error()
	h.log.Warn("hint to the agent failed", "err", err)
}

// Hook tells how the hints to Options.HookURL went; ok is false without one.
func (e *Emulator) Hook() (status HookStatus, ok bool) {
	if e.hook == nil {
		return HookStatus{}, false
	}
	e.hook.mu.Lock()
	defer e.hook.mu.Unlock()
	return e.hook.status, true
}
