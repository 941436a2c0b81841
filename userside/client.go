package userside

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"time"
)

// Observer hears of every request, for metrics. It must be safe for concurrent use.
type Observer interface {
	// Call is called after each request (each attempt of a retried call) with
	// the action's Label and how long it took with its body.
	Call(action string, took time.Duration, outcome Outcome)
}

// Options say how to reach one ERP. Fields with a tag are keys of the
// configuration (package config). Zero values mean the stated defaults.
type Options struct {
	// Its API, up to and with /api.php. Required (example).
	URL string `cfg:"url" read:"erp_url" required:"the address of the ERP's API, such as https://erp.example.net/api.php" example:"https://erp.example.net/api.php"`
	Key Key    // obligatory

	// PEM file with the authority of the ERP's certificate, for a private one. It is
	// read again when that certificate is not believed any more. Empty: the
	// authorities of the system.
	CAFile string `cfg:"ca_file" read:"ca_file" default:""`

	// Do not verify the ERP's certificate. Whoever is on the path can then read
	// the key; a warning says so.
	InsecureSkipVerify bool `cfg:"insecure_skip_verify" default:"false"`

	// The proxy to the ERP: that of the environment (HTTPS_PROXY, HTTP_PROXY,
	// NO_PROXY), none, or a URL such as http://192.0.2.3:3128. The key goes through
	// it; a warning says so.
	Proxy     string            `cfg:"proxy" read:"erp_proxy" default:"environment"` // empty: environment
	Dialed    func(netip.Addr)  // is told the address of each connection that a request gets, a proxy's too; nil: nobody is
	Transport http.RoundTripper // instead of an own one; CAFile and InsecureSkipVerify are then refused, Proxy is not looked at

	// For one call, from the connection to the last byte. 1s to 10m.
	Timeout time.Duration `cfg:"timeout" default:"30s" min:"1s" max:"10m"` // zero: 30 s

	// The same for calls with short answers: who is stopped or paused, the card of a
	// customer. Never longer than timeout. 1s to 10m.
	QuickTimeout time.Duration `cfg:"quick_timeout" default:"10s" min:"1s" max:"10m"` // zero: 10 s

	// The budget: requests to the ERP per minute, whatever causes them; a tenth of
	// them may follow one another at once. Beyond it calls wait, none is dropped.
	// The usual load is far below the default. 0: no limit.
	RequestsPerMinute int `cfg:"requests_per_minute" default:"1200" min:"0" max:"1000000"`

	// How often a failed read is tried again within one poll, with growing pauses.
	// Changes are never repeated. 0 to 10.
	Retries               int           `cfg:"retries" default:"3" min:"0" max:"10"`
	RetryIdempotentWrites bool          // retry writes that the table calls idempotent, too; off: writes are sent once
	BackoffBase           time.Duration // before the first retry, doubled each time; 500 ms
	BackoffMax            time.Duration // bound of the doubling; 30 s

	// Calls with long answers at the same time. The ERP is a PHP application on one
	// database: 1 is polite. Beside them there are never more than four others, one
	// of each kind: a poll of states, the card of a customer that a hint named, a
	// command, the report of a MAC. They do not wait for the long ones. 1 to 16.
	MaxConcurrent int `cfg:"max_concurrent" default:"1" min:"1" max:"16"` // zero: 1

	// The largest answer, in MiB: unpacked, and as what is kept of it while it is
	// read. A larger one counts as damaged. 1 to 4096.
	MaxAnswer int   `cfg:"max_answer_mib" default:"512" min:"1" max:"4096"` // zero: 512
	MaxBody   int64 // the same in bytes; zero: MaxAnswer

	// The longest single text in an answer (a name, a comment, a number), in KiB. An
	// answer with a longer one counts as damaged. 4 to 65536.
	MaxText int `cfg:"max_text_kib" default:"1024" min:"4" max:"65536"` // zero: 1024

	// Version of the server, which decides how actions and parameters are named:
	// auto asks it once; if the key may not ask, the newest names are used. Or a
	// version such as 3.16dev3, 3.17 or 3.18.15.
	ERPVersion Version `cfg:"erp_version" read:"erp_version" default:"auto"` // zero: asked for at the first call

	// Send skip_internal_api=1 with changes (MACs, and states set by hand), so that the
	// ERP's own hooks (custom_api.php) do not run for what comes from here.
	SkipInternalAPI bool           `cfg:"skip_internal_api" default:"false"`
	ActionParameter string         // "action" or "subcat" (API page section 1); empty: what the version wants
	Location        *time.Location // of the dates that the server writes; time.Local
	UserAgent       string         // "usher"
	Logger          *slog.Logger   // retries are logged here; nil: nowhere
	Observer        Observer       // nil: nobody
}

// Client talks to one ERP. It is safe for concurrent use.
type Client struct {
	opts     Options
	endpoint url.URL
	http     *http.Client
	gates    [laneCount]chan struct{} // see newGates
	levels   levels
	budget   *budget
	pending  pendings
	rest     rest
	redactor redactor
	log      *slog.Logger
}

// Format hides the key from every verb of package fmt.
func (c *Client) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "userside.Client(%s)", c.endpoint.Redacted())
}

// New checks the options and gives a Client. Nothing is sent yet.
func New(o Options) (*Client, error) {
	endpoint, err := checkURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("userside: url: %w", err)
	}
	if err := o.Key.validate(); err != nil {
		return nil, fmt.Errorf("userside: key: %w", err)
	}
	if err := CheckProxy(o.Proxy); err != nil {
		return nil, fmt.Errorf("userside: proxy: %w", err)
	}
	switch {
	case o.Retries < 0:
		return nil, fmt.Errorf("userside: retries: %d is negative", o.Retries)
	case o.MaxConcurrent < 0:
		return nil, fmt.Errorf("userside: max concurrent requests: %d is negative", o.MaxConcurrent)
	case o.RequestsPerMinute < 0:
		return nil, fmt.Errorf("userside: requests per minute: %d is negative", o.RequestsPerMinute)
	case o.Timeout < 0 || o.QuickTimeout < 0 || o.BackoffBase < 0 || o.BackoffMax < 0 || o.MaxBody < 0 || o.MaxAnswer < 0 || o.MaxText < 0:
		return nil, errors.New("userside: a time or size limit is negative")
	case o.ActionParameter != "" && o.ActionParameter != "action" && o.ActionParameter != "subcat":
		return nil, fmt.Errorf("userside: action parameter: %q is neither action nor subcat", o.ActionParameter)
	case o.Transport != nil && (o.CAFile != "" || o.InsecureSkipVerify):
		return nil, errors.New("userside: an own transport excludes a CA file and insecure verification")
	}
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.QuickTimeout, 10*time.Second)
	setDefault(&o.BackoffBase, 500*time.Millisecond)
	setDefault(&o.BackoffMax, 30*time.Second)
	setDefault(&o.MaxConcurrent, 1)
	setDefault(&o.MaxAnswer, 512)
	setDefault(&o.MaxBody, int64(o.MaxAnswer)<<20)
	setDefault(&o.MaxText, 1024)
	setDefault(&o.Location, time.Local)
	setDefault(&o.UserAgent, "usher")
	if o.Transport == nil {
		if o.Transport, err = ownTransport(o); err != nil {
			return nil, err
		}
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		opts:     o,
		endpoint: endpoint,
		http: &http.Client{
			Transport: telling(o.Transport, o.Dialed),
			// A redirect would carry the URL, and so the key, as referrer to wherever it leads.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		gates:    newGates(o.MaxConcurrent),
		budget:   newBudget(o.RequestsPerMinute),
		redactor: newRedactor(o.Key),
		log:      log,
	}, nil
}

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// checkURL never repeats the URL in its errors: somebody may have put the key into it.
func checkURL(raw string) (url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return url.URL{}, errors.New("is empty")
	case err != nil:
		return url.URL{}, errors.New("cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https":
		return url.URL{}, errors.New("must begin with http:// or https://")
	case u.Hostname() == "":
		return url.URL{}, errors.New("has no host")
	case u.User != nil:
		return url.URL{}, errors.New("must not hold credentials")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return url.URL{}, errors.New("must end with /api.php, without query or fragment; the key has its own setting")
	case path.Base(u.Path) != "api.php":
		return url.URL{}, errors.New("must end with /api.php")
	}
	return *u, nil
}

// newDialer is how connections are made.
func newDialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
}

// ownTransport is that of a client whose options have none.
func ownTransport(o Options) (http.RoundTripper, error) {
	if o.CAFile != "" {
		return newRenewing(o)
	}
	return newTransport(o)
}

// pingAfter is how long a connection of HTTP/2 may be silent before it is asked
// for a sign of life, and how long it then has: all calls share it, so a dead one
// would hang all of them.
const pingAfter = 15 * time.Second

func newTransport(o Options) (*http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureSkipVerify}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("userside: ca file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("userside: ca file %s: holds no PEM certificate", o.CAFile)
		}
		conf.RootCAs = pool
	}
	return &http.Transport{
		Proxy:                  proxyOf(o),
		DialContext:            newDialer().DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
		MaxIdleConnsPerHost:    o.MaxConcurrent + otherLanes,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // gzip is recognised by its magic, for old servers do not announce it
		MaxResponseHeaderBytes: 1 << 20,
	}, nil
}
