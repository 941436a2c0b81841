package record

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func testMasker() *masker { return newMasker([32]byte{1, 2, 3}) }

func TestBodyKeepsWhatIsPeculiar(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string // parts that stay
		gone     []string // parts that go
	}{
		{"envelope", `{"Result":"OK", "ErrorText" : "", "Id":1001}`, []string{`{"Result":"OK", "ErrorText" : "", "Id":`}, []string{"1001"}},
		{"numbers as text and numbers", `{"state_id":"2","balance":"-12.50","port":5,"is_disable":0,"x":999}`, []string{`{"state_id":"2","balance":"-12.50","port":5,"is_disable":0,`}, nil},
		{"dates", `{"date_create":"2024-02-01 10:00:05","date":"01.02.2024","foo_date":"-"}`, []string{"2024-02-01 10:00:05", "01.02.2024"}, nil},
		{"empty values", `{"data":[],"list":{},"name":"","mac":null,"ip":"0","ok":true}`, []string{`{"data":[],"list":{},"name":"","mac":null,"ip":"0",`, `:true}`}, nil},
		{"cyrillic stays cyrillic", `{"full_name":"Іваненко Олег"}`, nil, []string{"Іваненко", "Олег"}},
		{"escapes", `{"full_name":"\u041e\u043b\u0435\u0433 \"A\""}`, []string{`{"full_name":"\u04`, ` \"`, `\""}`}, []string{`\u041e\u043b\u0435\u0433`}},
		{"entities", `{"full_name":"&quot;Boris&quot; &amp; sons&#047;1 &#1040;&#1083;&#x430;<br>x<br \/>"}`,
			[]string{"&quot;", "&quot; &amp; ", "&#047;", "<br>", `<br \/>`, "&#x4"}, []string{"Boris", "sons", "&#1040;&#1083;"}},
		{"entity of escapes", `{"comment":"\u0026#1040;\u0026#1083;"}`, []string{`\u0026#`}, []string{"1040", "1083"}},
		{"bom", "\ufeff{\"result\":\"OK\"}", []string{"\ufeff{\"result\":\"OK\"}"}, nil},
		{"php warning", "<br />\n<b>Warning</b>:  Undefined array key &quot;comment&quot; in <b>/var/www/ivanov/api.php</b> on line <b>214</b><br />\n" + `{"result":"OK"}`,
			[]string{"<br />\n<b>Warning</b>:  Undefined array key &quot;comment&quot; in <b>/var/www/", "on line <b>214</b>", `{"result":"OK"}`}, []string{"ivanov"}},
		{"html page", `<html><title>502 Bad Gateway</title><p id="k">Dear Boris, call 380441234567 or 10.5.6.7</p></html>`,
			[]string{"<html><title>502 Bad Gateway</title>"}, []string{"Boris", "380441234567", "10.5.6.7"}},
		{"truncated", `{"result":"OK","data":[{"customer_id":1001,"ip":"167772170","mac":"0011223`, []string{`{"result":"OK","data":[{"customer_id":`}, []string{"0011223", "167772170"}},
		{"truncated escape", `{"full_name":"\u041e\u04`, []string{`\u04`}, []string{`\u041e`}},
		{"error text", `{"result":"ERROR","error":"Customer Boris (12345) not found, key 0123456789abcdef denied"}`,
			[]string{`"Customer `, "not found, key", "denied"}, []string{"Boris", "12345", "0123456789abcdef"}},
		{"numbers under text keys", `{"phone":380441234567,"account_number":10000501,"phone0":[777]}`, nil, []string{"380441234567", "10000501", "777"}},
		{"nested text", `{"apartment":{"number":"17","foo":"Main"},"email":[{"address":"bob@example.net","flag_main":1}]}`, []string{`"flag_main":1`, "@"}, []string{"17", "Main", "bob", "example"}},
		{"unknown key", `{"zzz":"secret value","qqq":"0x0a050607"}`, nil, []string{"secret", "value", "0a050607"}},
		{"data as keys", `{"data":{"ivanov":{"ip":"10.5.6.7"},"petrov":{"ip":"10.5.6.8"}}}`, []string{`"ip"`}, []string{"ivanov", "petrov"}},
		{"unknown names of fields stay", `{"data":[{"strange":"a"},{"strange":"b"}]}`, []string{`"strange"`}, nil},
		{"interfaces", `{"ifaces":{"1":{"ifName":"Gi0\/5","ifNumber":1},"1005":{"ifName":"ge-0/0/1"},"2":{"ifName":"to Ivanov"}}}`,
			[]string{`{"ifaces":{"1":{"ifName":"Gi0\/5","ifNumber":1},"1005":{"ifName":"`}, []string{"Ivanov"}},
		{"code page", "{\"full_name\":\"\xc8\xe2\xe0\xed\"}", nil, []string{"\xc8\xe2\xe0\xed"}},
		{"coordinates", `{"coordinates":"50.450123,30.523456","foo":50.450123}`, nil, []string{"450123", "523456"}},
		{"short coordinates under a new key", `{"data":[{"latitude":50.4501,"x":"30.5234"}]}`, nil, []string{"50.4501", "30.5234"}},
		{"amounts under a new key", `{"zzz":12.50,"qqq":"-3.5"}`, []string{":12.50", `"-3.5"`}, nil},
		{"addresses under keys of figures", `{"subnet":"10.5.6.0","entrance":"10.5.6.7","date_ip":"10.5.6.8"}`, nil, []string{"10.5.6."}},
		{"phones under keys of figures", `{"is_phone":"380441234567","date_x":"0441234567","port":380441234567,"software_version":"0441234567"}`, nil, []string{"441234567"}},
		{"figures", `{"timestamp_ready":1700000000,"subnet":"29","is_x":"0","port":"5","balance":"1234567.50","date_x":"1700000000"}`,
			[]string{`{"timestamp_ready":1700000000,"subnet":"29","is_x":"0","port":"5","balance":"1234567.50","date_x":"1700000000"}`}, nil},
		{"streets as names of interfaces", `{"ifaces":{"1":{"ifName":"Franka 12/5"},"2":{"ifName":"Petrenko1"}}}`, nil, []string{"Franka", "12/5", "Petrenko"}},
		{"phone in groups in a message", `{"error":"customer 067 123-45-67 on line 214 in port 5, tel. 2-34-56"}`, []string{"customer ", "on line 214", "port 5"}, []string{"067", "123", "-45-", "2-34-56"}},
		{"ipv6", `{"ip6":"2001:db8:85a3::8a2e:370:7334","error":"no route to 2001:db8:0:12::1 port 5"}`, []string{"no route to ", " port 5"}, []string{"85a3", "370", "db8", ":12:", "::1 "}},
		{"versions", `{"erp_version":"3.16dev3","php_version":"8.1.27","os":"Linux"}`, []string{"3.16dev3", "8.1.27", "Linux"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(testMasker().body([]byte(c.in)))
			t.Log(got)
			for _, s := range c.want {
				require.Contains(t, got, s)
			}
			for _, s := range c.gone {
				require.NotContains(t, got, s)
			}
			require.Equal(t, json.Valid([]byte(c.in)), json.Valid([]byte(got)))
			require.Equal(t, utf8.ValidString(c.in), utf8.ValidString(got))
			require.Equal(t, got, string(testMasker().body([]byte(c.in))), "the same key gives the same mask")
		})
	}
}

// A key may be made of words that stay elsewhere.
func TestKeyOfKnownWords(t *testing.T) {
	m := testMasker()
	m.key = "read-only-123"
	got := string(m.body([]byte(`{"error":"read access: key read-only-123 denied, see /api.php?key=read-only-123&cat=customer"}`)))
	require.NotContains(t, got, "only")
	require.NotContains(t, got, "123")
	require.Contains(t, got, `{"error":"read access: key `)
	require.Contains(t, got, "&cat=customer")
}

func TestEverySpellingOfAnAddressMeansTheSame(t *testing.T) {
	m := testMasker()
	for _, c := range []struct{ name, dotted, decimal, signed string }{
		{"private", "10.5.6.7", "168101383", ""},
		{"upper half", "185.12.34.56", "3104580152", "-1190387144"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ip := m.value(c.dotted, byForm, true)
			require.NotEqual(t, c.dotted, ip)
			a := netip.MustParseAddr(ip)
			require.True(t, netip.MustParsePrefix("100.64.0.0/10").Contains(a) || netip.MustParsePrefix("198.18.0.0/15").Contains(a), ip)
			n := m.value(c.decimal, byForm, true)
			require.Equal(t, ip, ipText(uint32(mustUint(t, n))))
			require.Contains(t, m.value("see "+c.dotted+", please", plain, true), " "+ip+", ")
			require.Equal(t, `{"`+n+`":{"ip":`+n+`,"host":"`+ip+`","ip_net":"`+ip+`/32"}}`,
				string(m.body([]byte(`{"`+c.decimal+`":{"ip":`+c.decimal+`,"host":"`+c.dotted+`","ip_net":"`+c.dotted+`/32"}}`))))
			if c.signed != "" {
				require.Equal(t, ip, ipText(uint32(mustInt(t, m.value(c.signed, byForm, true)))))
			}
		})
	}
}

func mustUint(t *testing.T, s string) (n uint64) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(s), &n))
	return n
}

func mustInt(t *testing.T, s string) (n int64) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(s), &n))
	return n
}

func TestAddressesKeepTheirNetworks(t *testing.T) {
	m := testMasker()
	seen := map[uint32]uint32{}
	from := ipNumber(netip.MustParseAddr("10.1.0.0"))
	common := func(a, b uint32) int {
		for n := range 32 {
			if (a^b)>>(31-n)&1 == 1 {
				return n
			}
		}
		return 32
	}
	for i := uint32(0); i < 1<<16; i += 61 {
		ip := from + i
		out := m.ips.mask(ip)
		require.NotContains(t, seen, out)
		seen[out] = ip
		if i > 0 {
			require.Equal(t, common(ip, ip-61), common(out, m.ips.mask(ip-61)), "%s %s", ipText(ip), ipText(ip-61))
		}
	}
	for _, ip := range []string{"0.0.0.0", "127.0.0.1", "255.255.255.0", "255.255.255.255", "224.0.0.1", "0.0.0.9"} {
		require.Equal(t, ip, m.value(ip, byForm, true))
	}
	require.True(t, strings.HasSuffix(m.value("10.1.2.0/24", byForm, true), ".0/24"))
	require.True(t, strings.HasSuffix(m.value("10.1.2.64\\/26", byForm, true), "\\/26"))
	masked := netip.MustParseAddr(strings.TrimSuffix(m.value("10.1.2.64/26", byForm, true), "/26"))
	require.Equal(t, netip.PrefixFrom(masked, 26).Masked().Addr(), masked)
	require.Equal(t, m.ips.mask(from+2*256+77)&^63, ipNumber(masked))
	// More networks than there is room for: still no end, no panic.
	for i := range uint32(1 << 13) {
		m.ips.mask(i<<19 | 0x0101)
	}
	require.Positive(t, m.ips.crowded)
}

func TestIDsKeepTheirOrder(t *testing.T) {
	m := testMasker()
	gaps := map[uint64]bool{}
	for id := uint64(1000); id < 1100; id++ {
		gaps[m.ids.mask(id+1)-m.ids.mask(id)] = true
	}
	require.Greater(t, len(gaps), 3, "distances are no secret: %v", gaps)
	prev := m.ids.mask(firstID) - 1
	for id := uint64(firstID); id < lastID; id += 1 + id/50 {
		out := m.ids.mask(id)
		require.Greater(t, out, prev)
		require.Less(t, out, uint64(topID))
		require.NotEqual(t, id, out)
		prev = out
	}
	for id := uint64(lastID); id < firstInet; id += 99_991 {
		out := m.ids.mask(id)
		require.Greater(t, out, prev)
		require.Less(t, out, uint64(firstInet))
		prev = out
	}
	require.Equal(t, m.value("1001,1002", byForm, true), m.value("1001", byForm, true)+","+m.value("1002", byForm, true))
}

func TestHardwareAddressesKeepTheirSpelling(t *testing.T) {
	m := testMasker()
	plainMAC := m.value("001e58aabbcc", byForm, true)
	require.Len(t, plainMAC, 12)
	require.Equal(t, "02", plainMAC[:2])
	colons := plainMAC[:2] + ":" + plainMAC[2:4] + ":" + plainMAC[4:6] + ":" + plainMAC[6:8] + ":" + plainMAC[8:10] + ":" + plainMAC[10:]
	require.Equal(t, colons, m.value("00:1e:58:aa:bb:cc", byForm, true))
	require.Equal(t, strings.ToUpper(colons), m.value("00:1E:58:AA:BB:CC", byForm, true))
	require.Equal(t, strings.ReplaceAll(colons, ":", "-"), m.value("00-1e-58-aa-bb-cc", byForm, true))
	require.Equal(t, plainMAC[:4]+"."+plainMAC[4:8]+"."+plainMAC[8:], m.value("001e.58aa.bbcc", byForm, true))
	require.Contains(t, m.value("old 00:1e:58:aa:bb:cc!", plain, true), " "+colons+"!")
	require.Equal(t, plainMAC[:6], m.value("001e58010203", byForm, true)[:6], "the same vendor")
	require.Equal(t, "000000000000", m.value("000000000000", byForm, true))
	require.Equal(t, "ffffffffffff", m.value("ffffffffffff", byForm, true))
	require.Equal(t, m.value("00:11:22:33:44:55", byForm, true), colonsOf(m.value("001122334455", byForm, true)))
	require.Equal(t, "03", m.value("01:00:5e:00:00:01", byForm, true)[:2])
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`, m.value("00000006-0000-4000-8000-000000001771", byForm, true))
}

func colonsOf(s string) string {
	var parts []string
	for i := 0; i < len(s); i += 2 {
		parts = append(parts, s[i:i+2])
	}
	return strings.Join(parts, ":")
}

func TestWordsAreConsistent(t *testing.T) {
	m := testMasker()
	low := m.value("иваненко", plain, true)
	require.Equal(t, strings.ToUpper(low), m.value("ИВАНЕНКО", plain, true))
	escaped := m.value(`\u0438\u0432\u0430\u043d\u0435\u043d\u043a\u043e`, plain, true)
	var s string
	require.NoError(t, json.Unmarshal([]byte(`"`+escaped+`"`), &s))
	require.Equal(t, low, s)
	seen := map[string]bool{}
	for i := range 20_000 {
		w := m.word("login" + string(rune('a'+i%26)) + strings.Repeat("x", i/26%20) + string(rune('a'+i/520%26)) + string(rune('a'+i/13520)))
		require.False(t, seen[w])
		seen[w] = true
	}
}

// Of a text without end the length stays, and masking it takes little more than that.
func TestLongTextsKeepTheirLength(t *testing.T) {
	secret := strings.Repeat("Барсик 380675550003 ", 1<<20/26)
	digits := strings.Repeat("7", 300<<10)
	for name, in := range map[string]string{
		"a value":   `{"data":[{"comment":"` + secret + `","id":7}]}`,
		"a key":     `{"data":{"` + secret + `":{"id":7}}}`,
		"unclosed":  `{"data":"` + secret + `\"`,
		"a page":    "<html>" + secret,
		"no string": `{"data":` + strings.ReplaceAll(secret, " ", "") + `}`,
		"a number":  `{"data":` + digits + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := testMasker().body([]byte(in))
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
			require.Equal(t, len(in), len(got))
			for _, text := range []string{"Барсик", "380675550003", "777"} {
				require.False(t, bytes.Contains(got, []byte(text)), text)
			}
			require.Equal(t, json.Valid([]byte(in)), json.Valid(got))
		})
	}
}

// A text that is masked word by word takes time by its length, not by its square: before that
// was so, this one took some minutes.
func TestTextsAreMaskedInTime(t *testing.T) {
	in := `{"data":[{"comment":"` + strings.Repeat("Барсик 380675550003 ", longText/27) + `"}]}`
	began := time.Now()
	got := testMasker().body([]byte(in))
	require.Less(t, time.Since(began), 30*time.Second)
	require.Equal(t, len(in), len(got))
	require.False(t, bytes.Contains(got, []byte("Барсик")))
	require.False(t, bytes.Contains(got, []byte("xxxx")), "it is not too long yet")
	require.True(t, json.Valid(got))
}

func FuzzMask(f *testing.F) {
	for _, s := range []string{
		`{"result":"OK","data":[{"customer_id":1001,"ip":"167772170","mac":"001122334455"}]}`,
		`{"a":"\u04","b":"\x","c":01,"d":1e5,"e":-0,"f":tru}`, "\ufeff<br />\n[1,2]", `"text [1] more"`, `{"a":"&#1040;&eacute;&#x;&#99999999;<br>`,
		`{"ip_net":"10.0.0.0\/24","x":"10.0.0.1/33","y":"1.2.3.4.5","z":"00:11:22:33:44:55:66"}`, "\xc8\xe2 {\"a\":1}", `{"\ud801\udc28":"\ud801"}`, `-`, `1`, `"`, `{"a`, `[[[[`, `}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got := testMasker().body(in)
		if json.Valid(in) != json.Valid(got) {
			t.Fatalf("valid %v becomes valid %v:\n%q\n%q", json.Valid(in), json.Valid(got), in, got)
		}
		if bytes.Count(in, []byte("{")) != bytes.Count(got, []byte("{")) || bytes.Count(in, []byte(`"`)) != bytes.Count(got, []byte(`"`)) {
			t.Fatalf("structure changed:\n%q\n%q", in, got)
		}
	})
}
