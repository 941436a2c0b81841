package record_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/userside/record"
)

const (
	goodHeader = `{"format":"usher-erp-recording","version":1}` + "\n"
	goodLine   = `{"number":1,"method":"GET","category":"a","action":"b","named":"action","args":{},"status":200,"body":"1.json","bytes":2,"took_seconds":0.1}` + "\n"
)

func writeSet(t testing.TB, index string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "index.jsonl"), []byte(index), 0o600))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	body := map[string]string{"1.json": "{}"}
	line := func(old, new string) string { return goodHeader + strings.Replace(goodLine, old, new, 1) }
	for _, c := range []struct{ name, index, want string }{
		{"empty", "", "index.jsonl:1: empty"},
		{"no recording", "{}\n", `index.jsonl:1: format "": want usher-erp-recording`},
		{"newer", `{"format":"usher-erp-recording","version":2}` + "\n" + goodLine, "index.jsonl:1: version 2 of the format"},
		{"no exchange", goodHeader, "index.jsonl:1: no exchange is recorded"},
		{"no json", goodHeader + "hello\n", "index.jsonl:2: invalid character"},
		{"unknown member", line(`"args":{}`, `"args":{},"x":1`), `index.jsonl:2: json: unknown field "x"`},
		{"two objects", goodHeader + strings.TrimSpace(goodLine) + " {}\n", "index.jsonl:2: text after the object"},
		{"status", line(`"status":200`, `"status":99`), "index.jsonl:2: status 99"},
		{"no status and no reason", line(`"status":200`, `"status":0`), "index.jsonl:2: failure"},
		{"method", line("GET", "DELETE"), `index.jsonl:2: method "DELETE"`},
		{"outside", line("1.json", "../../etc/passwd"), "index.jsonl:2: body \"../../etc/passwd\": want the name"},
		{"missing body", line("1.json", "2.json"), "index.jsonl:2: body: "},
		{"wrong size", line(`"bytes":2`, `"bytes":3`), "index.jsonl:2: body: 1.json does not have the 3 bytes"},
		{"later line", goodHeader + goodLine + "\n" + "{\n", "index.jsonl:4: unexpected EOF"},
		{"content type", line(`"bytes":2`, `"bytes":2,"content_type":"x\r\ny"`), "index.jsonl:2: content_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := record.Load(writeSet(t, c.index, body))
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := record.Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorContains(t, err, "no such file")
	dir := writeSet(t, goodHeader+goodLine, nil)
	require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "1.json")))
	_, err = record.Load(dir)
	require.ErrorContains(t, err, "escapes")
	set, err := record.Load(writeSet(t, goodHeader+goodLine, body))
	require.NoError(t, err)
	require.Equal(t, "a.b", set.Exchanges()[0].Label())
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(goodHeader+goodLine), []byte("{}"))
	f.Add([]byte(goodHeader+strings.Replace(goodLine, `"bytes":2`, `"bytes":2,"gzip":"announced","cut":true`, 1)), []byte("ab"))
	f.Add([]byte(goodHeader+strings.Replace(goodLine, `"status":200`, `"status":0,"failure":"timeout"`, 1)), []byte("ab"))
	f.Add([]byte("{"), []byte{})
	f.Fuzz(func(t *testing.T, index, body []byte) {
		dir := t.TempDir()
		if os.WriteFile(filepath.Join(dir, "index.jsonl"), index, 0o600) != nil || os.WriteFile(filepath.Join(dir, "1.json"), body, 0o600) != nil {
			t.Skip("no room")
		}
		set, err := record.Load(dir)
		if err != nil {
			require.Contains(t, err.Error(), "index.jsonl:")
			return
		}
		for _, e := range set.Exchanges() {
			serve := func() (aborted bool) {
				defer func() { aborted = recover() != nil }()
				r := httptest.NewRequest("GET", "/api.php", nil)
				q := r.URL.Query()
				q.Set("cat", e.Category)
				q.Set("action", e.Action)
				r.URL.RawQuery = q.Encode()
				set.ServeHTTP(httptest.NewRecorder(), r)
				return false
			}
			if serve() && e.Status != 0 && !e.Cut {
				t.Fatalf("aborted: %+v", e)
			}
		}
	})
}
