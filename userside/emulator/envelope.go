package emulator

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
)

// answer is what a successful action sends.
type answer struct {
	// body writes the members that follow the marker; nil: the marker only.
	body func(*encoder)
	// bare writes the whole answer without envelope, as cat=module has it.
	bare func(*encoder)
}

// data answers with fn's value under the key data.
func data(fn func(*encoder)) answer {
	return answer{body: func(e *encoder) { e.key("data"); fn(e) }}
}

// apiError is an answer that is not OK. Its text is ours: the vendor publishes none.
type apiError struct {
	status int // HTTP status; the legacy profile sends 200
	text   string
}

func (e *apiError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &apiError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

// dress sends what write writes, with the quirks that work on bytes.
func dress(w io.Writer, r *request, write func(io.Writer) error) error {
	q := r.quirks
	plain := write
	write = func(w io.Writer) error {
		if q.BOM {
			if _, err := io.WriteString(w, "\ufeff"); err != nil {
				return err
			}
		}
		if q.PHPWarning {
			if _, err := io.WriteString(w, phpWarning); err != nil {
				return err
			}
		}
		return plain(w)
	}
	if q.Truncated {
		whole := write
		write = func(w io.Writer) error {
			var b bytes.Buffer
			if err := whole(&b); err != nil {
				return err
			}
			_, err := w.Write(b.Bytes()[:b.Len()/2])
			return err
		}
	}
	if q.GzipNoHeader && r.param("gz") != "disable" {
		z := gzip.NewWriter(w)
		if err := write(z); err != nil {
			return err
		}
		return z.Close()
	}
	return write(w)
}

const phpWarning = "<br />\n<b>Warning</b>:  Undefined array key &quot;comment&quot; in <b>/var/www/erp/api.php</b> on line <b>214</b><br />\n"

func htmlPage(status int) string {
	if status == http.StatusOK {
		return "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><form method=\"post\" action=\"/oper/\">" +
			"<input name=\"login\"><input name=\"password\" type=\"password\"></form></body></html>\n"
	}
	return fmt.Sprintf("<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n<center><h1>%[1]d %[2]s</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
		status, http.StatusText(status))
}

// success writes the envelope of an OK answer.
func (e *encoder) success(p Profile, body func(*encoder)) {
	e.object(func() {
		e.strField(envelope(p, "result"), "OK")
		if body != nil {
			body(e)
		}
	})
}

// refusal writes the envelope of an error.
func (e *encoder) refusal(p Profile, err error) {
	e.object(func() {
		e.strField(envelope(p, "result"), "ERROR")
		e.strField(envelope(p, "error"), err.Error())
	})
}

// envelope returns the name of an envelope key in a profile (API page, section 2.1).
func envelope(p Profile, key string) string {
	if !p.old() {
		return key
	}
	switch key {
	case "result":
		return "Result"
	case "error":
		return "ErrorText"
	default:
		return key
	}
}

// countingWriter counts the bytes of an answer.
type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}
