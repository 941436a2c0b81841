package console

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/provision"
)

// HookPath is where the ERP says that a customer changed; docs/erp-hooks.md.
const HookPath = "/hooks/customer"

// The headers of a hint. The signature is "sha256=" and the hexadecimal
// HMAC-SHA256, keyed with the shared secret, of the timestamp as sent, a dot and
// the raw body. The timestamp is Unix time in whole seconds.
const (
	HookTimestampHeader = "X-Usher-Timestamp"
	HookSignatureHeader = "X-Usher-Signature"
)

const (
	hookBodyLimit = 1024
	// hookRate and hookBurst bound good hints per second: an import of a billing
	// may change thousands of customers at once.
	hookRate  = 100
	hookBurst = 2000
	// hookLogEvery bounds how often refused requests are logged.
	hookLogEvery = time.Minute
)

// HookOutcome says what became of one hint request. A closed set: it is a metric label.
type HookOutcome string

// The outcomes of a hint request.
const (
	HookAccepted     HookOutcome = "accepted"
	HookBadSignature HookOutcome = "bad_signature" // signature missing or wrong
	HookStale        HookOutcome = "stale"         // signed, but its time is outside the window
	HookReplayed     HookOutcome = "replayed"      // signed, but seen before
	HookLimited      HookOutcome = "limited"       // signed, but too many of them
	HookMalformed    HookOutcome = "malformed"     // no customer to read in it, or too large
	HookForbidden    HookOutcome = "forbidden"     // the caller's address is not allowed
	HookOtherName    HookOutcome = "other_name"    // the request is for a name that is not in hooks.hosts
)

// HookOutcomes lists every HookOutcome.
func HookOutcomes() []HookOutcome {
	return []HookOutcome{HookAccepted, HookBadSignature, HookStale, HookReplayed, HookLimited, HookMalformed, HookForbidden, HookOtherName}
}

func (o HookOutcome) status() int {
	switch o {
	case HookAccepted:
		return http.StatusAccepted
	case HookBadSignature, HookStale:
		return http.StatusUnauthorized
	case HookReplayed:
		return http.StatusConflict
	case HookLimited:
		return http.StatusTooManyRequests
	case HookForbidden:
		return http.StatusForbidden
	case HookOtherName:
		return http.StatusMisdirectedRequest
	default:
		return http.StatusBadRequest
	}
}

// Hooks is the endpoint of hints. A good request is answered before anything is
// asked of the ERP.
type Hooks struct {
	opts     atomic.Pointer[config.Hooks]
	hint     func(provision.SubscriberID)
	observe  func(HookOutcome)
	log      *slog.Logger
	now      func() time.Time
	lastLog  atomic.Int64 // Unix nanoseconds of the newest line about a refused request
	replay   replayGuard
	handlers http.Handler
}

// NewHooks makes the endpoint. hint is called with each customer that a good
// request names and must not block; observe, which may be nil, with each outcome.
func NewHooks(o config.Hooks, hint func(provision.SubscriberID), observe func(HookOutcome), log *slog.Logger) *Hooks {
	if observe == nil {
		observe = func(HookOutcome) {}
	}
	h := &Hooks{hint: hint, observe: observe, log: log, now: time.Now}
	h.replay.limit = rate.NewLimiter(hookRate, hookBurst)
	h.Reconfigure(o)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+HookPath, h.customer)
	h.handlers = mux
	return h
}

// Reconfigure takes new options for the requests to come.
func (h *Hooks) Reconfigure(o config.Hooks) { h.opts.Store(&o) }

// ServeHTTP implements http.Handler.
func (h *Hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.handlers.ServeHTTP(w, r) }

// Allows reports whether hooks.allow has the caller's address; at the door, before anything is read.
func (h *Hooks) Allows(a netip.Addr) bool {
	o := h.opts.Load()
	return len(o.Allow) == 0 || slices.ContainsFunc(o.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Refused counts a caller whom the door has kept out for a reason of the configuration.
func (h *Hooks) Refused(why door.Refusal, a netip.Addr, name string) {
	var outcome HookOutcome
	var err error
	switch why {
	case door.NotAllowed:
		outcome, err = HookForbidden, errors.New("address not allowed")
	case door.OtherName:
		outcome, err = HookOtherName, fmt.Errorf("it asks for %q, which is not in hooks.hosts", name)
	default:
		return
	}
	h.observe(outcome)
	h.tell(context.Background(), outcome, a.String(), err)
}

// tell logs a refused request, one a minute.
func (h *Hooks) tell(ctx context.Context, outcome HookOutcome, remote string, err error) {
	if last, now := h.lastLog.Load(), h.now().UnixNano(); now-last >= int64(hookLogEvery) && h.lastLog.CompareAndSwap(last, now) {
		h.log.WarnContext(ctx, "a hint is refused; further ones are only counted for a minute",
			"outcome", string(outcome), "remote", remote, "error", err)
	}
}

func (h *Hooks) customer(w http.ResponseWriter, r *http.Request) {
	id, outcome, err := h.judge(w, r)
	h.observe(outcome)
	if outcome != HookAccepted {
		h.tell(r.Context(), outcome, r.RemoteAddr, err)
		w.Header().Set("Connection", "close") // who has no secret keeps no connection
		writeJSON(w, outcome.status(), map[string]string{"error": string(outcome)})
		return
	}
	h.hint(id)
	writeJSON(w, http.StatusAccepted, map[string]bool{"accepted": true})
}

// judge decides on one request. What it costs without the secret is one bounded
// read and one HMAC.
func (h *Hooks) judge(w http.ResponseWriter, r *http.Request) (provision.SubscriberID, HookOutcome, error) {
	o, now := h.opts.Load(), h.now()
	if !h.allowsRemote(r.RemoteAddr) {
		return 0, HookForbidden, errors.New("address not allowed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, hookBodyLimit))
	if err != nil {
		return 0, HookMalformed, err
	}
	stamp, signature := r.Header.Get(HookTimestampHeader), r.Header.Get(HookSignatureHeader)
	mac, ok := verify(o, stamp, signature, body)
	if !ok {
		return 0, HookBadSignature, errors.New("signature missing or wrong")
	}
	at, err := parseStamp(stamp)
	if err != nil {
		return 0, HookMalformed, err
	}
	if off := now.Sub(at).Abs(); off > o.Window {
		return 0, HookStale, fmt.Errorf("%s off: see the clocks of both hosts", off.Round(time.Second))
	}
	id, err := readCustomer(r.Header.Get("Content-Type"), body)
	if err != nil {
		return 0, HookMalformed, err
	}
	outcome := h.replay.see(mac, at.Add(o.Window), now)
	return id, outcome, nil
}

// allowsRemote is Allows once more: the list may have changed since the caller came in.
func (h *Hooks) allowsRemote(remote string) bool {
	ap, _ := netip.ParseAddrPort(remote) // what cannot be read is in no list
	return h.Allows(ap.Addr().Unmap().WithZone(""))
}

// signatureOf is the HMAC of a hint.
func signatureOf(secret []byte, stamp string, body []byte) [sha256.Size]byte {
	m := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(m, stamp)
	_, _ = m.Write([]byte{'.'})
	_, _ = m.Write(body)
	return [sha256.Size]byte(m.Sum(nil))
}

// verify compares in constant time. No secret verifies nothing.
func verify(o *config.Hooks, stamp, signature string, body []byte) ([sha256.Size]byte, bool) {
	want := signatureOf([]byte(o.Secret.Reveal()), stamp, body)
	text, ok := strings.CutPrefix(signature, "sha256=")
	got, err := hex.DecodeString(text)
	if !ok || err != nil || len(o.Secret) == 0 {
		return want, false
	}
	return want, hmac.Equal(want[:], got)
}

func parseStamp(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt32*10 {
		return time.Time{}, errors.New("timestamp is no Unix time in seconds")
	}
	return time.Unix(n, 0), nil
}

// readCustomer reads {"customer_id": 17} or customer_id=17. Other members may be
// there, such as a nonce; none of them is looked at.
func readCustomer(contentType string, body []byte) (provision.SubscriberID, error) {
	text := ""
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return 0, errors.New("body is no form")
		}
		if len(form["customer_id"]) != 1 {
			return 0, errors.New("want customer_id once")
		}
		text = form.Get("customer_id")
	} else {
		var hint struct {
			Customer json.RawMessage `json:"customer_id"`
		}
		if err := json.Unmarshal(body, &hint); err != nil {
			return 0, errors.New("body is no JSON object")
		}
		text = string(bytes.Trim(hint.Customer, `"`))
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 {
		return 0, errors.New("customer_id is no positive number")
	}
	return provision.SubscriberID(id), nil
}

// replayGuard remembers the signatures of the hints it let pass until their time
// is over, and lets only so many pass: that bounds its memory.
type replayGuard struct {
	mu    sync.Mutex
	limit *rate.Limiter
	seen  map[[sha256.Size]byte]time.Time // until when
	swept time.Time
}

func (g *replayGuard) see(mac [sha256.Size]byte, until, now time.Time) HookOutcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.swept) >= time.Second {
		g.swept = now
		for m, end := range g.seen {
			if end.Before(now) {
				delete(g.seen, m)
			}
		}
	}
	if _, again := g.seen[mac]; again {
		return HookReplayed
	}
	if !g.limit.AllowN(now, 1) {
		return HookLimited
	}
	if g.seen == nil {
		g.seen = make(map[[sha256.Size]byte]time.Time)
	}
	g.seen[mac] = until
	return HookAccepted
}
