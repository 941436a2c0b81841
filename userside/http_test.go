package userside

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// HTTP as it is met between an agent and its ERP, each with the right value.

func TestDeflateIsRead(t *testing.T) {
	pack := func(open func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		w := open(&b)
		_, err := w.Write(manyRows(500))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	for name, doc := range map[string][]byte{
		"zlib": pack(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }),
		"raw": pack(func(w io.Writer) io.WriteCloser {
			z, err := flate.NewWriter(w, flate.BestCompression)
			require.NoError(t, err)
			return z
		}),
		"announced but plain": manyRows(500),
	} {
		t.Run(name, func(t *testing.T) {
			answer := func(doc []byte) *Client {
				return newTestClient(t, newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Encoding", "deflate")
					_, _ = w.Write(doc)
				}))
			}
			got, err := answer(doc).CustomerBindings(ctx)
			require.NoError(t, err)
			require.Len(t, got.Rows, 500)
			_, err = answer(doc[:len(doc)/2]).CustomerBindings(ctx)
			requireKind(t, err, ErrMalformed)
		})
	}
}

func TestWindows1251IsRead(t *testing.T) {
	// {"result":"OK","data":{"id":1,"full_name":"Иванов № 5, вул. Ґонти"}}
	doc := "{\"result\":\"OK\",\"data\":{\"id\":1,\"full_name\":\"\xc8\xe2\xe0\xed\xee\xe2 \xb9 5, \xe2\xf3\xeb. \xa5\xee\xed\xf2\xe8\"}}"
	for charset, want := range map[string]string{
		"windows-1251": "Иванов № 5, вул. Ґонти", "CP1251": "Иванов № 5, вул. Ґонти", "utf-8": "",
	} {
		t.Run(charset, func(t *testing.T) {
			c := newTestClient(t, newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html; charset="+charset)
				_, _ = io.WriteString(w, doc)
			}))
			got, err := c.Customer(ctx, 1)
			require.NoError(t, err, "letters that cannot be read cost nothing but themselves")
			require.EqualValues(t, 1, got.ID)
			if want == "" { // it says otherwise, and is believed
				require.Contains(t, got.FullName.Text(), " 5, ")
				return
			}
			require.Equal(t, want, got.FullName.Text())
		})
	}
	t.Run("every letter", func(t *testing.T) {
		require.Len(t, cp1251High, 128)
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		got, err := io.ReadAll(&cp1251{r: iotest.OneByteReader(bytes.NewReader(all))})
		require.NoError(t, err)
		require.Equal(t, string(all[:128])+string(cp1251High), string(got))
	})
}

// A redirect would turn the POST of a write into a GET, and carry the key elsewhere. None is followed; the error says
// where it leads.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, to := range map[string]string{"elsewhere": other.URL + "/api.php", "to itself": "/api.php?again=1"} {
			t.Run(fmt.Sprintf("%d %s", status, name), func(t *testing.T) {
				s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", to)
					w.WriteHeader(status)
				})
				c := newTestClient(t, s, func(o *Options) { o.Retries = 2 })
				err := c.ChangeState(ctx, 1, 1)
				where := s.URL
				if name == "elsewhere" {
					where = other.URL
				}
				require.Contains(t, errorOf(t, err, ErrMalformed).Text, "redirected to "+where)
				_, err = c.CustomerBindings(ctx)
				requireKind(t, err, ErrMalformed)
				require.Len(t, s.seen(), 2)
				require.Equal(t, "POST", s.seen()[0].method)
			})
		}
	}
	require.Zero(t, reached.Load())
}

// answerDNS answers one query for an A record with addresses; there are no others.
func answerDNS(conn net.Conn, addrs ...netip.Addr) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		end := 12
		for query[end] != 0 {
			end += int(query[end]) + 1
		}
		end += 5
		reply := append([]byte{}, query[:end]...)
		binary.BigEndian.PutUint16(reply[2:], 0x8180)
		binary.BigEndian.PutUint16(reply[6:], 0)
		binary.BigEndian.PutUint16(reply[8:], 0)
		binary.BigEndian.PutUint16(reply[10:], 0)
		if binary.BigEndian.Uint16(query[end-4:]) == 1 {
			binary.BigEndian.PutUint16(reply[6:], uint16(len(addrs)))
			for _, a := range addrs {
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
				reply = append(reply, a.AsSlice()...)
			}
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// Of two addresses of the ERP one is dead: reads and writes go to the other.
func TestTwoAddressesOneDead(t *testing.T) {
	dead, alive := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")
	for name, addrs := range map[string][]netip.Addr{"the first": {dead, alive}, "the second": {alive, dead}} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
			_, port, err := net.SplitHostPort(s.Listener.Addr().String())
			require.NoError(t, err)
			d := newDialer()
			d.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go answerDNS(theirs, addrs...)
				return ours, nil
			}}
			tr := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}
			c := newTestClient(t, s, func(o *Options) {
				o.URL, o.Transport = "http://erp.example.net:"+port+"/api.php", tr
			})
			require.NoError(t, c.ChangeState(ctx, 1, 1))
			_, err = c.CustomerBindings(ctx)
			require.NoError(t, err)
			require.Len(t, s.seen(), 2)
		})
	}
}

// closer is a server that answers the first request of each connection and closes it at the next one.
type closer struct {
	before bool // closes before that one is read

	mu       sync.Mutex // guards what follows
	requests []string   // methods
	conns    int
}

func (s *closer) serve(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	r := bufio.NewReader(conn)
	for i := range 2 {
		if _, err := r.Peek(1); err != nil || i == 1 && s.before {
			return
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		s.mu.Lock()
		s.requests = append(s.requests, req.Method)
		s.mu.Unlock()
		if i == 0 {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n"+`{"result":"OK","data":[]}`)
		}
	}
}

// The connection is closed at the moment of a write. Nobody knows whether it was done, so it is not sent again.
func TestConnectionClosedAtAWrite(t *testing.T) {
	for name, before := range map[string]bool{"after it was read": false, "before it was read": true} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			s := &closer{before: before}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { s.serve(conn) })
				}
			})
			c, err := New(Options{URL: "http://" + l.Addr().String() + "/api.php", Key: testKey, Retries: 3, BackoffBase: 1, BackoffMax: 1,
				ERPVersion: Version{Major: 3, Minor: 21, Stage: StageRelease}})
			require.NoError(t, err)
			t.Cleanup(func() { c.CloseIdle(); _ = l.Close(); wg.Wait() })
			active := 2
			_, err = c.CustomerIDs(ctx, CustomerFilter{State: &active}) // its connection is kept
			require.NoError(t, err)
			requireKind(t, c.ChangeState(ctx, 1, 1), ErrUnavailable)
			s.mu.Lock()
			defer s.mu.Unlock()
			want := []string{"GET", "POST"}
			if before {
				want = want[:1]
			}
			require.Equal(t, want, s.requests)
			require.Equal(t, 1, s.conns)
		})
	}
}

// authority signs certificates of a server on 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) sign(t *testing.T, serial int64, until time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("test ", serial)}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true}
	parent, by := a.cert, a.key
	if parent == nil {
		cert.IsCA, cert.KeyUsage = true, x509.KeyUsageCertSign
		parent, by, a.key = cert, key, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, by)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	if a.cert == nil {
		a.cert = leaf
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// The ERP's certificate is renewed while the agent runs: the next connection takes the new one. One that has expired is named.
func TestCertificateRenewedAtRunTime(t *testing.T) {
	ca := &authority{}
	root := ca.sign(t, 1, time.Now().Add(time.Hour))
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate[0]}), 0o600))
	var inUse atomic.Pointer[tls.Certificate]
	var shown atomic.Int32
	s := httptest.NewUnstartedServer(answerWith(200, `{"result":"OK","data":[]}`))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		shown.Add(1)
		return &tls.Config{Certificates: []tls.Certificate{*inUse.Load()}}, nil
	}}
	inUse.Store(ca.sign(t, 2, time.Now().Add(time.Hour)))
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newTestClient(t, &testServer{Server: s}, func(o *Options) { o.CAFile = file })
	require.NoError(t, c.ChangeState(ctx, 1, 1))
	inUse.Store(ca.sign(t, 3, time.Now().Add(time.Hour)))
	require.NoError(t, c.ChangeState(ctx, 1, 1), "the open connection is as good as before")
	c.CloseIdle()
	require.NoError(t, c.ChangeState(ctx, 1, 1))
	require.EqualValues(t, 2, shown.Load())
	inUse.Store(ca.sign(t, 4, time.Now().Add(-time.Hour)))
	c.CloseIdle()
	require.Contains(t, errorOf(t, c.ChangeState(ctx, 1, 1), ErrUnavailable).Text, "certificate has expired")
	inUse.Store(ca.sign(t, 5, time.Now().Add(time.Hour)))
	require.NoError(t, c.ChangeState(ctx, 1, 1), "renewed too late, but renewed")

	// So is the authority. Nothing of the call was sent before.
	next := &authority{}
	root = next.sign(t, 6, time.Now().Add(time.Hour))
	inUse.Store(next.sign(t, 7, time.Now().Add(time.Hour)))
	c.CloseIdle()
	require.Contains(t, errorOf(t, c.ChangeState(ctx, 1, 1), ErrUnavailable).Text, "unknown authority")
	require.NoError(t, os.WriteFile(file, []byte("half written"), 0o600))
	require.Contains(t, errorOf(t, c.ChangeState(ctx, 1, 1), ErrUnavailable).Text, "unknown authority")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate[0]}), 0o600))
	require.NoError(t, c.ChangeState(ctx, 1, 1))
	_, err := c.CustomerBindings(ctx)
	require.NoError(t, err)
}

// A proxy that is configured gets the call, and with plain HTTP the key.
func TestProxyByConfiguration(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
	c := newTestClient(t, s, func(o *Options) { o.URL, o.Proxy = "http://erp.example.net/api.php", s.URL })
	_, err := c.CustomerBindings(ctx)
	require.NoError(t, err)
	require.Equal(t, testKey, s.seen()[0].query.Get("key"))

	for value, want := range map[string]string{
		"http://192.0.2.3:3128": "", "socks5://192.0.2.3": "", "https://proxy.example.net/": "", ProxyEnvironment: "", ProxyNone: "", "": "",
		"ftp://192.0.2.3":               "begins with http://",
		"192.0.2.3:3128":                "cannot be read as a URL",
		"proxy":                         "begins with http://",
		"http://":                       "no host",
		"http://me:secret@192.0.2.3":    "must not hold user and password",
		"http://192.0.2.3/cgi?x=secret": "nothing after host and port",
	} {
		_, err := New(Options{URL: "http://erp.example.net/api.php", Key: testKey, Proxy: value})
		if want == "" {
			require.NoError(t, err, value)
			continue
		}
		require.ErrorContains(t, err, "proxy: ")
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

// With HTTPS a proxy learns where the ERP is, and nothing of the call.
func TestProxyOfHTTPS(t *testing.T) {
	erp := httptest.NewTLSServer(answerWith(200, `{"result":"OK","data":[]}`))
	t.Cleanup(erp.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: erp.Certificate().Raw}), 0o600))
	asked := make(chan string, 9)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI
		there, err := net.Dial("tcp", erp.Listener.Addr().String())
		if !assert.NoError(t, err) {
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, here)
			_ = there.Close()
		}()
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}))
	t.Cleanup(proxy.Close)
	c, err := New(Options{URL: "https://example.com/api.php", Key: testKey, CAFile: file, Proxy: proxy.URL, ERPVersion: Version{Major: 3, Minor: 21, Stage: StageRelease}})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	_, err = c.CustomerBindings(ctx)
	require.NoError(t, err)
	require.Equal(t, "CONNECT example.com:443", <-asked)
	require.Empty(t, asked)
}

// The proxy of the environment is taken unless the configuration says otherwise. The test is its own child, for a
// process looks at those variables once.
func TestProxyOfTheEnvironment(t *testing.T) {
	erp := Options{URL: "http://erp.example.net/api.php", Key: testKey, ERPVersion: Version{Major: 3, Minor: 21, Stage: StageRelease}}
	if os.Getenv("USHER_TEST_CHILD") != "" {
		c, err := New(erp)
		require.NoError(t, err)
		_, err = c.CustomerBindings(ctx)
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodGet, erp.URL, nil)
		via, err := proxyOf(erp)(r)
		require.NoError(t, err)
		require.NotNil(t, via)
		erp.Proxy = ProxyNone
		via, err = proxyOf(erp)(r)
		require.NoError(t, err)
		require.Nil(t, via)
		return
	}
	s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$")
	child.Env = append(os.Environ(), "USHER_TEST_CHILD=1", "HTTP_PROXY="+s.URL, "http_proxy="+s.URL, "NO_PROXY=", "no_proxy=", "REQUEST_METHOD=")
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Len(t, s.seen(), 1)
	require.Equal(t, testKey, s.seen()[0].query.Get("key"))
}

// What a bad variable of the environment says is not repeated: there may be a password in it.
func TestProxyThatCannotBeRead(t *testing.T) {
	o := Options{URL: "http://erp.example.net/api.php"}
	_, err := o.Via(func(*url.URL) (*url.URL, error) {
		return nil, fmt.Errorf("invalid proxy address %q", "http://me:secret@:x")
	})
	require.Error(t, err)
	via, err := o.Via(nil)
	require.NoError(t, err)
	require.Nil(t, via)
}

// pipes is a listener without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// lossy is a connection that loses what is written from some time on, without anybody hearing of it.
type lossy struct {
	net.Conn
	lost atomic.Bool
}

func (l *lossy) Write(p []byte) (int, error) {
	if l.lost.Load() {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// A connection of HTTP/2 that nothing comes through any more (a firewall forgot it) is given up: all calls share it.
func TestDeadHTTP2Connection(t *testing.T) {
	ca := &authority{}
	root := ca.sign(t, 1, time.Now().Add(time.Hour))
	cert := ca.sign(t, 2, time.Now().Add(time.Hour))
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate[0]}), 0o600))
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		protos := make(chan string, 9)
		srv := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				protos <- r.Proto
				_, _ = io.WriteString(w, `{"result":"OK","data":[]}`)
			}),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true},
			ErrorLog:  log.New(io.Discard, "", 0),
		}
		served := make(chan error)
		go func() { served <- srv.ServeTLS(l, "", "") }()
		tr, err := newTransport(Options{CAFile: file})
		require.NoError(t, err)
		tr.TLSClientConfig.Time = func() time.Time { return cert.Leaf.NotBefore.Add(time.Hour) } // the bubble has a clock of its own
		var dialed []*lossy
		tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			l.conns <- theirs
			dialed = append(dialed, &lossy{Conn: ours})
			return dialed[len(dialed)-1], nil
		}
		c, err := New(Options{URL: "https://127.0.0.1/api.php", Key: testKey, Transport: tr, Retries: 4, ERPVersion: Version{Major: 3, Minor: 21, Stage: StageRelease}})
		require.NoError(t, err)
		active := 2
		_, err = c.CustomerIDs(t.Context(), CustomerFilter{State: &active})
		require.NoError(t, err)
		require.Equal(t, "HTTP/2.0", <-protos)
		dialed[0].lost.Store(true)
		began := time.Now()
		_, err = c.CustomerIDs(t.Context(), CustomerFilter{State: &active})
		require.NoError(t, err)
		require.Less(t, time.Since(began), 45*time.Second)
		require.Len(t, dialed, 2)
		c.CloseIdle()
		require.NoError(t, srv.Close())
		<-served
	})
}
