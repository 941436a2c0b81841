package record_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
	"github.com/usher-agent/usher/userside/record"
)

const secretKey = "Sekr1t-Schluessel"

// originals are what must not be in a recording.
type originals struct {
	texts []string
	ips   []netip.Addr
	macs  []emulator.MAC
}

// fill makes customers and devices whose every secret is known.
func fill(t *testing.T, e *emulator.Emulator) originals {
	t.Helper()
	o := originals{texts: []string{secretKey}}
	names := []string{"Шевченко Олександра", `Kowalski "Hurtownia" & <Sons>`, "Petrenko7", "ООО Рога/Копыта"}
	for i := range long.Times(t, 12, 24) { // every name with every kind of address
		mac := emulator.MAC{0x00, 0x1e, 0x58, 0xde, 0xad, byte(i + 0x10)}
		ip := netip.AddrFrom4([4]byte{10, 77, byte(i / 8), byte(i*9 + 20)})
		if i%3 == 0 {
			ip = netip.AddrFrom4([4]byte{185, 112, 33, byte(i*9 + 20)})
		}
		c := emulator.Customer{
			ID: int64(3_412_300 + i*3), Login: fmt.Sprintf("loginname%02d", i), FullName: names[i%len(names)] + strconv.Itoa(70010+i),
			AccountNumber: fmt.Sprintf("77003%04d", i), AgreementNumber: fmt.Sprintf("DOG/55%04d", i), AgreementDate: time.Unix(1.7e9, 0),
			State: emulator.State(i % 3), BalanceCents: 1234, BillingUID: fmt.Sprintf("66%05d", i), Group: 1,
			Phones: []string{fmt.Sprintf("38067555%04d", i)}, Emails: []string{fmt.Sprintf("person%02d@kunde.example", i)},
			House: 3_987_654, Apartment: "Nebenhaus-187b", Comment: fmt.Sprintf("живет у моря, кличка Барсик, ip %s mac %s", ip, mac),
			Addresses: []emulator.Address{{IP: ip, MAC: mac}}, Links: []emulator.Link{{Device: 98_701, Port: uint32(i%8 + 1)}},
		}
		_, err := e.AddCustomer(c)
		require.NoError(t, err)
		o.texts = append(o.texts, c.Login, c.AccountNumber, c.AgreementNumber, c.BillingUID, c.Phones[0], strings.Split(c.Emails[0], "@")[0],
			strings.Fields(c.FullName)[0], strconv.FormatInt(c.ID, 10), "Барсик", "моря", "kunde", "3987654", "Nebenhaus", "Hurtownia")
		o.ips, o.macs = append(o.ips, ip), append(o.macs, mac)
	}
	d := emulator.Device{
		ID: 98_701, Name: "agg-Kharkiv-7", Model: "D-Link", MAC: emulator.MAC{0x00, 0x1e, 0x58, 0xbe, 0xef, 0x01}, IP: netip.MustParseAddr("10.99.88.77"),
		Location: "вулиця Сумська 17", Community: "comm-Geheim", Login: "adminroot", Password: "Passw0rd-Geheim",
	}
	for p := range uint32(8) {
		d.Ports = append(d.Ports, emulator.Port{Number: p + 1, Index: 10_100 + p, Name: fmt.Sprintf("Gi0/%d", p+1)})
	}
	_, err := e.AddDevice(d)
	require.NoError(t, err)
	o.texts = append(o.texts, "Kharkiv", "Сумська", "вулиця", d.Community, d.Password, d.Login, "98701", "Geheim", "Passw0rd")
	o.ips, o.macs = append(o.ips, d.IP), append(o.macs, d.MAC)
	return o
}

// spellings returns every form in which an original could have slipped through.
func (o originals) spellings() []string {
	var all []string
	for _, s := range o.texts {
		all = append(all, s, url.QueryEscape(s), jsonEscaped(s), entities(s))
	}
	for _, ip := range o.ips {
		b := ip.As4()
		n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		all = append(all, ip.String(), fmt.Sprint(n), fmt.Sprintf("%08x", n))
		if n >= 1<<31 {
			all = append(all, fmt.Sprint(int32(n)))
		}
	}
	for _, m := range o.macs {
		h := hex.EncodeToString(m[:])
		all = append(all, h, m.String(), strings.ReplaceAll(m.String(), ":", "-"), strings.ReplaceAll(m.String(), ":", "%3a"), h[:4]+"."+h[4:8]+"."+h[8:])
	}
	return all
}

func jsonEscaped(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c < 0x80 {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	return b.String()
}

func entities(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c < 0x80 {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, "&#%d;", c)
		}
	}
	return b.String()
}

// requireNone fails if any original stands in any file or file name of dir.
func requireNone(t *testing.T, dir string, o originals) {
	t.Helper()
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Greater(t, len(files), 1)
	var texts []string
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		require.NoError(t, err)
		texts = append(texts, f.Name()+"\n"+string(b))
	}
	for _, form := range []func(string) string{lowerASCII, strings.ToLower} {
		looked := map[string]bool{} // many spellings of an original are the same
		for _, s := range o.spellings() {
			if !utf8.ValidString(s) && form("Б") == "б" {
				continue // of a code page, which strings.ToLower does not know
			}
			looked[form(s)] = true
		}
		for i, text := range texts {
			low := form(text)
			for s := range looked {
				if at := find(low, s); at >= 0 {
					t.Fatalf("%s: %q is in it: %q", files[i].Name(), s, low[max(0, at-80):min(len(low), at+80)])
				}
			}
		}
	}
}

// find looks for s; a number only where it stands alone, for it may happen to be
// part of a longer one.
func find(text, s string) int {
	digit := func(i int) bool {
		return i >= 0 && i < len(text) && (text[i] >= '0' && text[i] <= '9' || text[i] == '.')
	}
	number := strings.Trim(s, "0123456789") == ""
	for from := 0; ; {
		at := strings.Index(text[from:], s)
		if at < 0 {
			return -1
		}
		at += from
		if !number || !digit(at-1) && !digit(at+len(s)) {
			return at
		}
		from = at + 1
	}
}

// lowerASCII leaves code pages alone.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// reads are calls of all kinds; what becomes of them does not matter here.
func reads(t *testing.T, base string, next http.RoundTripper) {
	t.Helper()
	client, err := userside.New(userside.Options{URL: base + "/api.php", Key: secretKey, Transport: next, Timeout: 10 * time.Second, Location: time.UTC})
	require.NoError(t, err)
	ctx := t.Context()
	_, _ = client.SystemInfo(ctx)
	_, _ = client.CustomerBindings(ctx)
	for state := range 3 {
		_, _ = client.CustomerIDs(ctx, userside.CustomerFilter{State: &state})
	}
	_, _ = client.Customers(ctx, []int64{3_412_300})
	_, _ = client.Customers(ctx, []int64{3_412_300, 3_412_303, 3_412_306, 3_999_999})
	_, _ = client.CustomerCommutation(ctx)
	_, _ = client.CustomerChain(ctx, 3_412_300)
	_, _ = client.Devices(ctx, userside.DeviceFilter{})
	raw := &http.Client{Transport: next}
	get := func(query string) {
		resp, err := raw.Get(base + "/api.php?key=" + secretKey + "&" + query)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	get("cat=device&action=get_data&object_type=all") // with access data
	get("cat=module&request=get_user_list")
	get("cat=customer&action=get_abon_id&data_typer=phone&data_value=380675550003")
	get("cat=customer&action=get_abon_id&data_typer=ip&data_value=10.77.0.29")
	get("cat=customer&action=get_abon_id&data_typer=login&data_value=loginname05")
	get("cat=customer&action=get_mac_history&customer_id=3412300")
	get("cat=device&action=find_mac&mac=001e58dead11")
	get("cat=customer&subcat=get_abon_id&data_typer=mac&data_value=00%3a1E:58-DE:AD:11")
	get("cat=loginname05&action=Барсик&Kharkiv=77")
}

func newRecorder(t *testing.T, next http.RoundTripper) (*record.Recorder, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "case")
	rec, err := record.NewRecorder(record.Options{Dir: dir, Next: next, Agent: "usher/test"})
	require.NoError(t, err)
	record.Fix(rec)
	return rec, dir
}

// A server that repeats a key made of words that a message may hold.
func TestEchoedKeyOfKnownWords(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"result":"ERROR","error":"not permitted: %s"}`, r.URL)
	}))
	defer srv.Close()
	rec, dir := newRecorder(t, http.DefaultTransport)
	resp, err := (&http.Client{Transport: rec}).Get(srv.URL + "/api.php?key=read-only-123&cat=customer&action=get_data&customer_id=1")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, rec.Close())
	text, err := os.ReadFile(filepath.Join(dir, "0001-customer.get_data.json"))
	require.NoError(t, err)
	require.Contains(t, string(text), "not permitted: /api.php?key=")
	require.NotContains(t, string(text), "only")
}

func TestNothingLeaks(t *testing.T) {
	quirks := map[string]emulator.Quirks{
		"plain": {}, "numbers as text": {NumericStrings: true, EmptyMapAsList: true}, "lists": {ListForMap: true, IDAsList: true},
		"escaped": {HTMLEscaped: true, BOM: true}, "gzip": {GzipNoHeader: true, OmitOptional: true}, "columns": {UpperCaseColumns: true},
		"composite": {CompositeRows: true}, "warning": {PHPWarning: true}, "truncated": {Truncated: true}, "truncated gzip": {Truncated: true, GzipNoHeader: true},
		"login page": {HTMLPage: 200}, "proxy": {HTMLPage: 502}, "forbidden": {Forbidden: true},
	}
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for name, q := range quirks {
			for _, letter := range []string{"A", "B", "C", "D", "E", "F"} {
				if name != "plain" && letter != "A" && !(name == "composite" && letter == "C") {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", profile, name, letter), func(t *testing.T) {
					shape, err := emulator.ParseShape(letter)
					require.NoError(t, err)
					e, err := emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: secretKey}}, Profile: profile, Shape: shape, Quirks: q})
					require.NoError(t, err)
					defer e.Close()
					o := fill(t, e)
					s := httptest.NewServer(e)
					defer s.Close()
					rec, dir := newRecorder(t, http.DefaultTransport)
					reads(t, s.URL, rec)
					n, size := rec.Size()
					require.NoError(t, rec.Close())
					require.GreaterOrEqual(t, n, 14)
					require.Positive(t, size)
					requireNone(t, dir, o)
					set, err := record.Load(dir)
					require.NoError(t, err)
					require.Len(t, set.Exchanges(), n)
				})
			}
		}
	}
}

// What an angry server may say with the customer's data in places where the
// contract has none.
func TestNothingLeaksFromWhereNobodyLooks(t *testing.T) {
	bodies := []string{
		`{"error":"no access for key Sekr1t-Schluessel from 10.77.0.29"}`,
		`<html>SQL error: select * from user where login='loginname05' and key="Sekr1t-Schluessel" {"a":"Барсик"}`,
		`{"data":{"loginname05":{"x":1},"loginname06":{"x":1}},"Kharkiv":"Барсик"}`,
		`{"data":[["Барсик",380675550003,"38067 555 0003",["comm-Geheim"]]]}`,
		`"Sekr1t-Schluessel`, `Sekr1t-Schluessel`, "loginname05\tБарсик\r\n3412300;10.77.0.29;00-1E-58-DE-AD-11",
		`{"data":{"185.112.33.20":"loginname05","3111133460":["-1183833836"]}}`,
		`{"ifName":"Барсик","object_type":"loginname05","state_id":"Барсик","result":"loginname05","erp_version":"Kharkiv","date":"loginname05"}`,
		"{\"full_name\":\"\xc1\xe0\xf0\xf1\xe8\xea loginname05\"}",
		`{"url":"http:\/\/10.77.0.29\/?login=loginname05&mac=00%3A1e%3A58"}`,
		`{"mac":"001E58DEAD11","hex":"0a4d001d","option82":"0006001e58dead11"}`,
	}
	o := originals{
		texts: []string{secretKey, "loginname05", "loginname06", "Барсик", "Kharkiv", "380675550003", "555 0003", "Geheim", "3412300", "\xc1\xe0\xf0\xf1\xe8\xea"},
		ips:   []netip.Addr{netip.MustParseAddr("10.77.0.29"), netip.MustParseAddr("185.112.33.20"), netip.MustParseAddr("185.112.33.84")},
		macs:  []emulator.MAC{{0x00, 0x1e, 0x58, 0xde, 0xad, 0x11}},
	}
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/loginname05; charset=Барсик")
		w.Header().Set("Location", "https://10.77.0.29/loginname05")
		w.WriteHeader([]int{200, 302, 500, 403}[n%4])
		_, _ = io.WriteString(w, bodies[n])
		n++
	}))
	defer s.Close()
	rec, dir := newRecorder(t, http.DefaultTransport)
	for range bodies {
		req, err := http.NewRequest(http.MethodGet, s.URL+"/api.php?cat=customer&action=get_data&customer_id=3412300&key="+secretKey, nil)
		require.NoError(t, err)
		resp, err := rec.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.NoError(t, rec.Close())
	requireNone(t, dir, o)
}

func fetchBody(t *testing.T, base, query string) (int, http.Header, string, error) {
	t.Helper()
	resp, err := http.DefaultClient.Get(base + "/api.php?" + query)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

func TestReplayMatches(t *testing.T) {
	answers := []string{`{"id":1}`, `{"id":2}`, `{"id":3}`, `{"id":4}`, `{"id":5}`}
	i := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answers[i])
		i++
	}))
	defer s.Close()
	rec, dir := newRecorder(t, http.DefaultTransport)
	for _, q := range []string{"action=get_customers_id&state_id=2", "action=get_customers_id&state_id=2", "action=get_data&customer_id=1,2,3", "action=get_data&customer_id=7,8", "subcat=get_data&usercode=9"} {
		resp, err := (&http.Client{Transport: rec}).Get(s.URL + "/api.php?key=a&cat=customer&" + q)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.NoError(t, rec.Close())
	set, err := record.Load(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"customer.get_customers_id", "customer.get_data"}, set.Actions())
	replay := httptest.NewServer(set)
	defer replay.Close()
	for _, c := range []struct{ query, body, how string }{
		{"cat=customer&action=get_customers_id&state_id=2&key=other", `{"id":1}`, "exact"},
		{"cat=abon&subcat=get_customers_id&state_id=2", `{"id":2}`, "exact"},
		{"cat=customer&action=get_customers_id&state_id=2", `{"id":2}`, "exact"}, // the last repeats
		{"cat=customer&action=get_data&customer_id=9", `{"id":5}`, "exact"},
		{"cat=customer&action=get_data&customer_id=2,3", `{"id":3}`, "nearest"},
		{"cat=customer&action=get_data&customer_id=8,9999", `{"id":4}`, "nearest"},
		{"cat=customer&action=get_data&customer_id=7,8&skip_internal_api=1", `{"id":4}`, "exact"},
	} {
		status, header, body, err := fetchBody(t, replay.URL, c.query)
		require.NoError(t, err)
		require.Equal(t, 200, status)
		require.Equal(t, c.body, body, c.query)
		require.Equal(t, c.how, header.Get("X-Usher-Replay"), c.query)
		require.Equal(t, "application/json", header.Get("Content-Type"))
	}
	form, err := http.PostForm(replay.URL+"/api.php?cat=customer&action=get_data", url.Values{"customer_id": {"7,8"}})
	require.NoError(t, err)
	require.NoError(t, form.Body.Close())
	require.Equal(t, "exact", form.Header.Get("X-Usher-Replay"))
	status, header, body, err := fetchBody(t, replay.URL, "cat=tariff&action=get")
	require.NoError(t, err)
	require.Equal(t, 404, status)
	require.Equal(t, "none", header.Get("X-Usher-Replay"))
	require.JSONEq(t, `{"result":"ERROR","error":"tariff.get is not in this recording, which has: customer.get_customers_id, customer.get_data"}`, body)
}

// What happens below HTTP is replayed too.
func TestReplayOfBrokenConnections(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("action") {
		case "cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"result":"OK","data":[`)
			assert.NoError(t, http.NewResponseController(w).Flush())
			panic(http.ErrAbortHandler)
		case "late":
			select {
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
		case "busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(503)
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	defer s.Close()
	rec, dir := newRecorder(t, http.DefaultTransport)
	for _, action := range []string{"cut", "late", "busy", "dead"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if action != "late" {
			ctx = t.Context()
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api.php?cat=test&action="+action, nil)
		require.NoError(t, err)
		resp, err := rec.RoundTrip(req)
		if err == nil {
			_, readErr := io.ReadAll(resp.Body)
			require.Equal(t, action == "cut", readErr != nil)
			require.NoError(t, resp.Body.Close())
		}
		cancel()
	}
	require.NoError(t, rec.Close())
	set, err := record.Load(dir)
	require.NoError(t, err)
	replay := httptest.NewServer(set)
	defer replay.Close()
	_, _, body, err := fetchBody(t, replay.URL, "cat=test&action=cut")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, `{"result":"OK","data":[`, body)
	for _, action := range []string{"late", "dead"} {
		_, _, _, err = fetchBody(t, replay.URL, "cat=test&action="+action)
		require.Error(t, err, action)
	}
	status, header, _, err := fetchBody(t, replay.URL, "cat=test&action=busy")
	require.NoError(t, err)
	require.Equal(t, 503, status)
	require.Equal(t, "7", header.Get("Retry-After"))
}

func TestRecorderRefusesAnotherRecordingsDirectory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
	_, err := record.NewRecorder(record.Options{Dir: dir, Next: http.DefaultTransport})
	require.ErrorContains(t, err, "is not empty")
}

func TestRecorderFilesAreTheOwnersAlone(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	rec, dir := newRecorder(t, http.DefaultTransport)
	resp, err := (&http.Client{Transport: rec}).Get(s.URL + "/api.php?cat=a&action=b")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, rec.Close())
	require.NoError(t, filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077)
		return nil
	}))
	resp, err = (&http.Client{Transport: rec}).Get(s.URL)
	if err == nil {
		resp.Body.Close()
	}
	require.ErrorContains(t, err, "recording has ended")
}
