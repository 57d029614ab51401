"""Repair of typos that cannot be anything else. English.

The nearest word of a dictionary is no repair: on web text it is wrong more often than right (`codec` becomes `code`,
`stdin` `stain`, and every British spelling American). So only known misspellings are repaired, each to the one word
that it can stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial

from flywheel.process.text import change_texts
from flywheel.record import Outcomes, Record

_LETTERS = re.compile(r"[^\W\d_]{3,}")
# Not in names of variables, addresses and paths.
_WORD = re.compile(r"(?<![\w@#/.\\])[^\W\d_]{3,}(?![\w@/\\]|\.\w)")
_TYPOGRAPHY = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\xa0"
_SPACES = {code: " " for code in range(128) if not chr(code).isalpha()}
_SHORT = 5
"""Capital letters of an abbreviation at most: such a word is left alone."""

_KNOWN = """
about: abuot; absence: absense abscence; acceptable: acceptible; accessible: accessable; accidentally: accidentaly;
accommodate: accomodate acommodate; accommodation: accomodation; accommodations: accomodations; accompanied:
acompanied; achieve: acheive; achieved: acheived; achievement: acheivement achievment; acknowledge: acknowlege
aknowledge; acquaintance: acquaintence; acquire: aquire; acquired: aquired; across: accross; address: adress;
addresses: adresses; adequate: adaquate; advertisement: advertisment advertizement; aggressive: aggresive; agreement:
agreeement; already: allready alredy; although: althought altough; always: allways alwasy; amateur: amature; among:
amoung; analysis: anaylsis analisys; apparent: apparant aparent; apparently: apparantly aparently; appearance:
appearence apperance; appropriate: appropiate; approximately: approximatly aproximately; argument: arguement;
assistance: assistence; athlete: athelete; attendance: attendence; audience: audiance; available: availible avaliable
availble; average: avarage; basically: basicly basicaly; beautiful: beatiful beautifull beutiful; because: becuase
becasue beacuse becouse; become: becom; becoming: becomming; before: befor; beginning: begining beggining; belief:
beleif; believe: beleive; believed: beleived; benefit: benifit; benefits: benifits; between: beetween betwen bewteen;
business: buisness bussiness busines; calendar: calandar; category: catagory; certain: certian; challenge: challange;
character: charachter charecter; chief: cheif; chocolate: choclate; colleague: collegue coleague; coming: comming;
commission: comission; commitment: committment; committed: commited; committee: comittee commitee committe; community:
comunity; company: compnay; comparison: comparision; compatible: compatable; competition: compitition; competitive:
competative; completely: completly completley; conscience: concience; conscious: concious; convenience: convienence;
convenient: convienient convinient; could: coudl; create: craete; criticism: critisism; curiosity: curiousity;
decision: desicion decison; definite: definate; definitely: definately definitly definetly; definition: defintion;
describe: discribe; description: discription desciption; desperate: desparate; develop: develope devlop; developed:
developped; development: developement devlopment; difference: diffrence; different: diffrent; difficult: dificult;
dilemma: dilemna; disappear: dissapear disapear; disappeared: dissapeared; disappoint: dissapoint; disappointed:
dissapointed; discipline: disipline; discussion: discusion; disease: desease; doesn't: dosen't; ecstasy: ecstacy;
either: eihter; eligible: elligible; embarrass: embarass; embarrassed: embarassed; embarrassing: embarassing; enough:
enought; entrepreneur: entreprenuer entrepeneur; environment: enviroment enviornment; environmental: enviromental;
equipment: equiptment; especially: especialy expecially; essential: essencial; exaggerate: exagerate; exceed: excede;
excellent: excellant; except: exept; exercise: excercise exersise; exhausted: exausted; existence: existance; expense:
expence; experience: experiance expereince; experiences: experiances; experiment: experiement; explanation:
explaination; extremely: extremly; familiar: familar; fascinating: facinating; February: Febuary; finally: finaly;
financial: finacial; fluorescent: flourescent; foreign: foriegn; forty: fourty; forward: foward; friend: freind;
friends: freinds; from: fomr; fundamental: fundemental; gauge: guage; generally: generaly; genius: genious;
government: goverment govenment; grammar: grammer; grateful: greatful; guarantee: garantee guarentee gaurantee; guard:
gaurd; guidance: guidence; happened: happend; happily: happilly; harass: harrass; have: ahve; height: heigth hieght;
hierarchy: heirarchy; humorous: humourous; hygiene: hygeine; identity: idenity; immediate: imediate; immediately:
immediatly imediately; incidentally: incidently; incredible: incredable; independence: independance; independent:
independant; indispensable: indispensible; influence: influance; information: infomation; intelligence: inteligence;
intelligent: inteligent; interest: intrest; interested: intrested; interesting: intresting interseting; interrupt:
interupt; interruption: interuption; irrelevant: irrelevent; irresistible: irresistable; island: iland; knowledge:
knowlege knowledege; knowledgeable: knowledgable; language: langauge languege; length: lenght legnth; lesson: leson;
liaison: liason; library: libary; license: lisence; likely: likley; literature: literture; maintenance: maintenence
maintainance; manageable: managable; management: managment; marriage: marrage; mathematics: mathmatics; medieval:
medeival; millennium: millenium; miniature: minature; minute: minuite; mischievous: mischevious mischievious;
misspell: mispell; misspelled: mispelled; misspelling: mispelling; mortgage: morgage; mysterious: misterious;
naturally: naturaly; necessarily: neccessarily; necessary: neccessary necesary neccesary; neither: niether; ninety:
ninty; ninth: nineth; noticeable: noticable; obviously: obviosly; occasion: occassion ocassion; occasional:
occassional; occasionally: occasionaly occassionally; occur: occure; occurred: occured; occurrence: occurence
occurance; occurring: occuring; official: offical; often: oftern; omission: ommision; opinion: oppinion;
opportunities: oppurtunities oportunities; opportunity: oppurtunity oportunity; opposite: oposite; original: orginal;
originally: orginally; other: ohter; outrageous: outragous; parallel: paralel parrallel; parliament: parliment;
particular: particuler; particularly: particulary; pastime: pasttime; people: poeple peopel; perceive: percieve;
perceived: percieved; performance: performence preformance; permanent: permanant; perseverance: perseverence;
persuade: pursuade; phenomenon: phenomonon; physical: phisical; piece: peice; pieces: peices; pleasant: plesant;
politician: politican; Portuguese: Portugese; possess: posess; possesses: posesses; possession: posession;
possibility: possiblity; possible: possable posible; possibly: possibley; practical: practicle; preferred: prefered;
prejudice: prejudise; prepare: prepair; presence: presense; previous: previuos; prisoner: prisonner; privilege:
priviledge privelege; probably: probaly probly; problem: probelm; procedure: proceedure; process: proccess;
professional: proffesional professionnal; professor: proffesor; prominent: prominant; pronunciation: pronounciation;
propaganda: propoganda; psychology: pyschology; purpose: purpous; pursue: persue; quality: qualtiy; quantity: quanity;
questionnaire: questionaire; queue: queueu; really: realy; receipt: reciept; receive: recieve; received: recieved;
receives: recieves; receiving: recieving; recognize: reconize; recommend: reccomend recomend reccommend; recommended:
reccomended recomended; reference: referance; referred: refered; referring: refering; refrigerator: refridgerator;
relevant: relevent; religious: religous; remember: rember remeber; reminiscent: reminicent; repetition: repitition;
representative: representitive; resource: resourse; responsibility: responsability responsiblity; restaurant:
restaraunt resturant; rhyme: ryhme; rhythm: rythm rythym; schedule: shedule; science: sceince; secretary: secratary
secretery; seize: sieze; separate: seperate; separated: seperated; separately: seperately; separation: seperation;
several: severel; should: shoudl; siege: seige; significant: signifigant significent; similar: similiar simular;
sincerely: sincerly; society: soceity; soldier: soilder; something: somthing; sometimes: somtimes; sophomore:
sophmore; speech: speach; statement: statment; straight: straigt; straightforward: straighforward; strength: strenght;
strictly: stricly; studying: studing; succeed: suceed; success: sucess succes; successful: successfull sucessful
succesful; successfully: succesfully sucessfully; sufficient: sufficent; suggest: sugest; supersede: supercede;
supposed: suposed; suppress: supress; surprise: suprise; surprised: suprised; surprising: suprising; surveillance:
surveillence; susceptible: susceptable; temperature: temperture tempature; tendency: tendancy; that: taht; the: teh
hte; their: thier; themselves: themselfs themselve; there: tehre; therefore: therfore; they: tehy; this: tihs;
thorough: thourough; thought: thougt; threshold: threshhold; through: thruogh; together: togather togehter; tomato:
tomatoe; tomorrow: tommorow tommorrow tomorow; tongue: tounge; tragedy: tradegy; transferred: transfered;
transferring: transfering; truly: truely; twelfth: twelth; typical: tipical; tyranny: tyrany; unanimous: unanimus;
unforgettable: unforgetable; unfortunately: unfortunatly unfortunatley; unnecessary: unneccessary unecessary; until:
untill; usage: useage; useful: usefull; usually: usualy usally; vacuum: vaccum vacume; valuable: valueable valuble;
various: varios; vegetable: vegatable; vehicle: vehical vehicule; villain: villian; visible: visable; volume: volumne;
Wednesday: Wensday Wednsday; weird: wierd; welcome: wellcome; what: waht; when: wehn; where: whre; whether: wheather;
which: whcih wich; with: wiht; withdrawal: withdrawl; without: whithout witout; work: wrok; world: wrold; would:
woudl; writing: writting; written: writen; year: yera; yield: yeild; your: yuor
"""
"""Right spelling: misspellings, none of which is a word."""


def fix_typos(rows: Iterable[Record], corrections: dict[str, str] | None = None) -> Outcomes:
    """Repair some 500 common misspellings of English words, such as `recieve`, and those of `corrections`.

    `corrections` maps a misspelling in lower case to its repair. Capitals are kept; other words are never touched,
    nor are names of variables, addresses and paths.
    """
    table = _known() | {wrong.lower(): right for wrong, right in (corrections or {}).items()}
    return change_texts(rows, partial(_repaired, table=table))


def _known() -> dict[str, str]:
    entries = (entry.split(": ") for entry in " ".join(_KNOWN.split()).split("; "))
    return {wrong.lower(): right for right, misspellings in entries for wrong in misspellings.split()}


def _repaired(text: str, table: Mapping[str, str]) -> str:
    if table.keys().isdisjoint(_words(text.lower())):
        return text
    return _WORD.sub(lambda match: _repair(match[0], table), text)


def _words(text: str) -> list[str]:
    """The runs of letters in a text, the slow way only where it has letters beyond ASCII."""
    if not text.isascii():
        for mark in _TYPOGRAPHY:
            text = text.replace(mark, " ")
    return text.translate(_SPACES).split() if text.isascii() else _LETTERS.findall(text)


def _repair(word: str, table: Mapping[str, str]) -> str:
    right = table.get(word.lower())
    if right is None or (word.isupper() and len(word) <= _SHORT):
        return word
    if word.isupper():
        return right.upper()
    return right[0].upper() + right[1:] if word[0].isupper() else right
