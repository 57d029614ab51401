import pytest

from flywheel.process.mail import remove_email_headers, without_headers, without_signature
from flywheel.record import Record

BODY = "Hello Ann,\n\nthe report: attached. From now on: weekly.\n"
HEADERS = """\
From ann@example.org Mon May  5 10:00:00 2025
Received: from a.example.org
\tby b.example.org; Mon, 5 May 2025
From: Ann <ann@example.org>
To: Bob <bob@example.org>
Subject: Report
X-Mailer: x

"""


@pytest.mark.parametrize(
    ("mail", "plain"),
    [
        (HEADERS + BODY, BODY),
        (BODY + "\n-----Original Message-----\nFrom: Bob\nSent: Monday\nSubject: Re\n\nOld", BODY + "\nOld"),
        (BODY + "\n> ---------- Forwarded message ---------\n> From: Bob\n> Date: Monday\n>\n> Old", BODY + "\n> Old"),
        ("Yes.\n\nOn Mon, 5 May 2025 at 10:00, Bob <bob@example.org> wrote:\n> Old", "Yes.\n\n> Old"),
        ("Ja.\n\nAm 05.05.2025 um 10:00 schrieb Bob:\n> Alt", "Ja.\n\n> Alt"),
        ("To: be or not to be.\nThat is the question.", "To: be or not to be.\nThat is the question."),
        (
            "Subject matter: none.\nRomeo: Ay me!\nDate palms grow.",
            "Subject matter: none.\nRomeo: Ay me!\nDate palms grow.",
        ),
    ],
)
def test_headers_are_removed(mail: str, plain: str) -> None:
    assert without_headers(mail) == plain


def test_a_mail_of_nothing_but_headers_is_dropped() -> None:
    (result,) = remove_email_headers([Record("m", text=HEADERS)])
    assert getattr(result, "reason", None) == "empty"


@pytest.mark.parametrize(
    "signature",
    [
        "-- \nBob Example\nExample Ltd.\n+1 555 0100\n",
        "--\nBob\n",
        "Best regards,\nBob Example\nHead of Examples\n",
        "Kind regards\n\nBob\n",
        "Thanks!\nBob\n",
        "Yours sincerely,\n\nBob\n\nSent from my iPhone\n",
        "Get Outlook for Android\n",
    ],
)
def test_signatures_are_removed(signature: str) -> None:
    assert without_signature(BODY + "\n" + signature) == BODY


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        "Thanks,\nI will send you the whole report on Monday.\n",
        "Best regards were sent to all of them, and nothing else was said that day.",
        "Title\n--\n" + "a long text\n" * 40,
        "x" * 5_000,
        "",
    ],
)
def test_other_ends_stay(text: str) -> None:
    assert without_signature(text) == text


def test_only_the_end_of_a_long_text_is_looked_at() -> None:
    long = "word " * 2_000 + "\n\nCheers,\nBob"
    assert without_signature(long) == ("word " * 2_000).rstrip()
